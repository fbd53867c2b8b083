"""python critic.py WORLD.pt SECONDS OUT.pt key=value"""
import sys, time, torch, numpy as np
from openjepa.core.rng import CounterRNG
from openjepa.data.loader import Steps
from openjepa.methods.world_model import WorldModel
from openjepa.methods.critic import Critic
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.pushes import *
from openjepa.training.device import choose_device
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from openjepa.data.synthetic.rooms import *
from openjepa.data.synthetic.geodesic import *
from openjepa.planning.planners.mppi import mppi
from openjepa.planning.planners.plan import shift_plan
torch.set_num_threads(1)
wfile,seconds,out=sys.argv[1],float(sys.argv[2]),sys.argv[3]; opts=dict(a.split("=") for a in sys.argv[4:])
world=opts.pop("world","two-rooms"); batch=int(opts.pop("batch",12)); lr=float(opts.pop("lr",2e-3)); seed=int(opts.pop("seed",0)); ema=float(opts.pop("ema",.85)); n_tasks=int(opts.pop("tasks",100)); stride=int(opts.pop("stride",8)); task_seed=int(opts.pop("task_seed",7)); init=opts.pop("init","")
data=Trajectory(world=world,steps=23,stride=stride)
cfg=Critic(**{k:type(getattr(Critic(),k))(float(v)) for k,v in opts.items()})
dev=choose_device("cpu","fp32"); m=cfg.build(data,seed)
state={k:v for k,v in torch.load(wfile).items() if k.startswith("world.")}
missing=m.load_state_dict(state,strict=False); assert not missing.unexpected_keys
if init: m.load_state_dict(torch.load(init))
steps=Steps(data.dataset(data.listing()),None,data.layout,batch_size=batch,total_steps=100000,seed=seed+1)
opt=build_optimizer(m,Optim())
c=w=m.world
def encode(frames): return c.perception(data.tokens(frames))[0].x.unflatten(1,(frames.shape[1],-1))
@torch.no_grad()
def quality():
    r=draw_rooms(world,CounterRNG.of(3,0,np.arange(40)),True); g=draw_positions(r,CounterRNG.of(4,0,np.arange(40)),"goal")
    geo=geodesic_distance(r.wall,g); f=c.values.field(encode(render(r.wall,g[:,None]))[:,0])
    rs=[];es=[]
    pos=torch.stack([draw_positions(r,CounterRNG.of(50+k,0,np.arange(40)),"s") for k in range(60)],1)
    true=torch.stack([distance_at(geo,pos[:,k]) for k in range(60)],1)/1.5
    v=c.values(f,w.locate(encode(render(r.wall,pos)).flatten(0,1)))
    rank=lambda x:x.argsort(1).argsort(1).float()
    a,b=rank(v),rank(true); corr=((a-a.mean(1,keepdim=True))*(b-b.mean(1,keepdim=True))).mean(1)/(a.std(1,unbiased=False)*b.std(1,unbiased=False))
    print(f"   rank {corr.mean():.3f} mean abs err {(v-true).abs().mean():.2f} bias {(v-true).mean():.2f}",flush=True)
@torch.no_grad()
def evaluate(mode,n):
    idx=np.arange(n); r=draw_rooms(world,CounterRNG.of(task_seed,0,idx),True); start=draw_positions(r,CounterRNG.of(task_seed,0,idx),"start"); goal=draw_positions(r,CounterRNG.of(task_seed,0,idx),"goal",start)
    f=c.values.field(encode(render(r.wall,goal[:,None]))[:,0]); pos=start; done=(pos-goal).norm(dim=-1)<2.3; when=torch.full((n,),999)
    gen=torch.Generator().manual_seed(0); plan=torch.zeros(n,8,2); t0=time.process_time()
    for t in range(100):
        z=encode(render(r.wall,pos[:,None]))[:,0]
        if mode=="greedy":
            if t%3==0:
                A=directions(12,2,1.5); loc=imagine_pushes(w,z,A,(1,3)); q=(c.values(f,loc).unflatten(1,(12,2))+torch.tensor([1.,3.])).amin(2); act=A[q.argmin(1)]
            a=act
        elif mode=="exact":
            if t%4==0:
                def cost(seq):
                    S=seq.shape[1]; p=pos.repeat_interleave(S,0); wl=r.wall.repeat_interleave(S,0)
                    for k in range(8): p=move(wl,p,seq[:,:,k].flatten(0,1))
                    return c.values(f,w.locate(encode(render(wl,p[:,None]))[:,0]))
                plan=mppi(cost,plan,gen,samples=48,iterations=3,std=1.0,temperature=.3).actions; k0=0
            a=plan[:,k0]; k0+=1
            if k0==4: plan=shift_plan(plan,4)
        else:
            if t%4==0:
                def cost(seq):
                    S=seq.shape[1]; s=z.repeat_interleave(S,0)
                    for k in range(8): s=w.dynamics(s,shorten(seq[:,:,k]).flatten(0,1))
                    return c.values(f,w.locate(s))
                plan=mppi(cost,plan,gen,samples=48,iterations=3,std=1.0,temperature=.3).actions; k0=0
            a=plan[:,k0]; k0+=1
            if k0==4: plan=shift_plan(plan,4)
        pos=torch.where(done[:,None],pos,move(r.wall,pos,a)); new=(pos-goal).norm(dim=-1)<2.3; when=torch.where(new&~done,t+1,when); done|=new
        if done.all(): break
    print(f"   {mode}: {100*done.float().mean():.1f}% within 50: {100*(when<=50).float().mean():.1f}%  {time.process_time()-t0:.0f}s",flush=True)
start=time.process_time(); n=0; next_=start+seconds/4
optim=Optim(); base=optim.at(0,10)
while time.process_time()-start<seconds:
    now=(time.process_time()-start)/seconds
    b=steps[n].batch
    res=train_step(m,opt,b,base._replace(lr=lr*min(1,(n+1)/30)*0.5*(1+np.cos(np.pi*now)),weight_decay=1e-5,momentum=ema),dev,clip=5.0); n+=1
    if time.process_time()>next_ or n in(1,10,50):
        print(f"{time.process_time()-start:.0f}s step {n} loss {float(res.output.loss):.3f}",{k:round(float(v),2) for k,v in res.output.metrics.items()},flush=True)
        if time.process_time()>next_: t0=time.process_time(); next_+=seconds/4; quality(); start+=time.process_time()-t0; next_+=time.process_time()-t0
print("steps",n); quality()
torch.save(m.state_dict(),out)
for mode in ("greedy","model","exact"): evaluate(mode,n_tasks)
