"""A link that doesn't last: a TCP proxy that resets each connection after so many bytes in one direction."""
import contextlib
import socket
import struct
import threading

from harness import free_port

PIECE = 64 * 1024


class CuttingProxy:
    """Forwards 127.0.0.1:`port` to `target`; resets both ends when a connection has carried `limit` bytes towards the
    target. `limit` may be changed at any time; None: never."""

    def __init__(self, target, limit):
        self.target, self.limit = target, limit
        self.port = free_port()
        self.carried = self.cuts = 0  # bytes towards the target, connections cut
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.sockets = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return  # closed
            try:
                far = socket.create_connection(self.target, 5)
            except OSError:
                self.reset(near)
                continue
            pair = (near, far)
            with self.lock:
                self.sockets.update(pair)
            threading.Thread(target=self.forward, args=(near, far, pair, True), daemon=True).start()
            threading.Thread(target=self.forward, args=(far, near, pair, False), daemon=True).start()

    def forward(self, source, to, pair, counted):
        carried = 0
        with contextlib.suppress(OSError):
            source.settimeout(None)
            while piece := source.recv(PIECE):
                to.sendall(piece)
                if not counted:
                    continue
                carried += len(piece)
                with self.lock:
                    self.carried += len(piece)
                if self.limit is not None and carried >= self.limit:
                    with self.lock:
                        self.cuts += 1
                    break
        for end in pair:
            self.reset(end)

    def reset(self, end):
        """With RST, as a firewall that forgot the connection."""
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes the other thread
        end.close()
        with self.lock:
            self.sockets.discard(end)

    def close(self):
        self.listener.close()
        with self.lock:
            rest = list(self.sockets)
        for end in rest:
            self.reset(end)
