"""The scripted server of `imgkit.testing`, under the name that our tests import."""

from imgkit.testing.wire_server import Line as Line
from imgkit.testing.wire_server import Script as Script
from imgkit.testing.wire_server import WireServer as WireServer
from imgkit.testing.wire_server import drip as drip
from imgkit.testing.wire_server import drop as drop
from imgkit.testing.wire_server import hang as hang
from imgkit.testing.wire_server import head as head
from imgkit.testing.wire_server import raw as raw
from imgkit.testing.wire_server import reply as reply
from imgkit.testing.wire_server import reset as reset
