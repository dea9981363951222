"""xpnet, the Program's calls made one by one: each is a call of NumPy, or on a GPU a kernel of CuPy's."""

from __future__ import annotations

from xpnet.engines.replay import Replay

from . import xpnet_engine


class System(xpnet_engine.System):
    make_engine = staticmethod(Replay)
