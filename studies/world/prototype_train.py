"""Train a world model and diagnose it: python train.py SECONDS key=value ..."""
import sys, time, dataclasses, torch, numpy as np
from openjepa.core.rng import CounterRNG
from openjepa.data.loader import Steps
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.training.device import choose_device
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from openjepa.data.synthetic.rooms import *
torch.set_num_threads(1)
seconds=float(sys.argv[1]); opts=dict(a.split("=") for a in sys.argv[2:])
world=opts.pop("world","two-rooms"); out=opts.pop("out",""); batch=int(opts.pop("batch",16)); lr=float(opts.pop("lr",2e-3)); seed=int(opts.pop("seed",0)); prec=opts.pop("precision","fp32"); steps_=int(opts.pop("steps",8)); ramp=float(opts.pop("ramp",0))
data=Trajectory(world=world,steps=steps_)
cfg=WorldModel(**{k:(v if k in("dynamics","target") else float(v)) for k,v in opts.items()})
dev=choose_device("cpu",prec)
m=cfg.build(data,seed); print(sum(p.numel() for p in m.parameters()))
total=100000
steps=Steps(data.dataset(data.listing()),None,data.layout,batch_size=batch,total_steps=total,seed=seed)
opt=build_optimizer(m,Optim())
def diagnose(m):
    m.eval(); enc=lambda o: m.encode(m.world,o)
    with torch.no_grad():
        def walks(seed,n,T,held=True): 
            e=draw_episodes(world,CounterRNG.of(seed,0,np.arange(n)),T,held); return e,enc(render(e.rooms.wall,e.position)).float()
        e,z=walks(5,2000,3,False); et,zt=walks(6,300,16)
        loc=m.world.locate(z.flatten(0,1)).summary; X=torch.cat([loc,torch.ones(len(loc),1)],1); Y=e.position.flatten(0,1)
        def phi(s): return torch.cat([s,torch.ones(len(s),1)],1)
        W=torch.linalg.lstsq(X,Y).solution
        zf=z.flatten(0,1).flatten(1); A=torch.cat([zf,torch.ones(len(zf),1)],1).double(); R=torch.linalg.solve(A.T@A+1.0*torch.eye(A.shape[1]),A.T@Y.double()).float()
        loc_t=phi(m.world.locate(zt.flatten(0,1)).summary)@W; err=(loc_t-et.position.flatten(0,1)).norm(dim=-1).mean()
        zr=zt.flatten(0,1).flatten(1); ridge=(torch.cat([zr,torch.ones(len(zr),1)],1)@R-et.position.flatten(0,1)).norm(dim=-1).mean()
        im=m.world.unroll(zt[:,0],et.action); P=(phi(m.world.locate(im.flatten(0,1)).summary)@W).unflatten(0,(-1,16)); ie=(P-et.position[:,1:]).norm(dim=-1).mean(0)
        # porosity: start 1..3 px before the upright wall, away from the door, push across
        r=draw_rooms(world,CounterRNG.of(7,0,np.arange(1000)),True)
        g=torch.Generator().manual_seed(0)
        num=r.number
        if world=="two-rooms": col=num//SIDE
        else: col=num//SIDE**5
        side=torch.rand(1000,generator=g)<.5; gap=1+2*torch.rand(1000,generator=g)
        x=torch.where(side,col-gap,col+WALL+gap); 
        wallrow=r.wall[torch.arange(1000),:,col]  # rows blocked
        # rows whose neighbours within 3 are all walls
        ok=torch.stack([torch.roll(wallrow,k,1) for k in range(-3,4)]).all(0); ok[:,:3]=False; ok[:,-3:]=False
        y=(torch.rand(1000,SIDE,generator=g).masked_fill(~ok,-1)).argmax(1)+.5
        pos=torch.stack([x,y],-1); free=~read_pixels(r.wall,pos)&(read_pixels(r.room,pos)>=0)
        act=torch.stack([torch.where(side,1.5,-1.5),torch.zeros(1000)],-1)
        s=enc(render(r.wall,pos[:,None]))[:,0].float(); im=m.world.unroll(s,act[:,None].expand(-1,8,-1))[:,-1]
        end=(phi(m.world.locate(im).summary)@W)[:,0]; past=torch.where(side,end>col+WALL+1,end<col-1)
        fr=torch.cat([im.flatten(1),torch.ones(1000,1)],1)@R; pastr=torch.where(side,fr[:,0]>col+WALL+1,fr[:,0]<col-1)
        print(f"   probe locator {err:.2f} ridge {ridge:.2f}  imagined 8: {ie[7]:.2f} 16: {ie[15]:.2f}  porosity locator {100*past[free].float().mean():.1f} ridge {100*pastr[free].float().mean():.1f} (n {int(free.sum())})",flush=True)
    m.train()
start=time.process_time(); next_=start+20; n=0
optim=Optim(lr=lr,weight_decay=1e-5)
while True:
    now=(time.process_time()-start)/seconds
    if now>=1: break
    b=steps[n].batch
    if ramp: object.__setattr__(m.config,'prediction',4+(ramp-4)*min(1,now/.3))
    hp=optim.at(0,10)._replace(lr=lr*max(min(1,n/50),0.01)*0.5*(1+np.cos(np.pi*now)),weight_decay=1e-5,momentum=0.99+0.01*now)
    r=train_step(m,opt,b,hp,dev,clip=5.0); n+=1
    if time.process_time()>next_:
        next_+=max(20,seconds/6); t0=time.process_time()
        print(f"{time.process_time()-start:.0f}s step {n}", {k:round(float(v),4) for k,v in r.output.metrics.items()}); diagnose(m); start+=time.process_time()-t0; next_+=time.process_time()-t0
print(f"done {n} steps"); diagnose(m)
if out: torch.save(m.state_dict(),out)
