"""STUB"""


def list_videos(roots):
    raise NotImplementedError
