"""F1: servers of the host on its loopback and on its own address, tried without and with a way to the Internet."""
import socket
import threading
from dataclasses import replace

from rig.case import judge


def listen(address):
    s = socket.socket()
    s.bind((address, 0))
    s.listen(64)

    def serve():
        while True:
            try:
                s.accept()[0].close()
            except OSError:
                return
    threading.Thread(target=serve, daemon=True).start()
    return s


def own_address():
    """The address by which the host would leave, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
            return s.getsockname()[0]
        except OSError:
            return None


def own_doors(battery, case):
    doors = [listen("127.0.0.1"), listen("0.0.0.0")]
    try:
        targets = f"127.0.0.1:{doors[0].getsockname()[1]}"
        if own_address():
            targets += f",{own_address()}:{doors[1].getsockname()[1]}"
        case = replace(case, argument=lambda b: targets)
        battery.controls.pop(case.id, None)  # other ports than last time
        outside = battery.outside(case)
        text = judge(outside, battery.inside(case))
        if battery.config.name != "rootless":
            judge(outside, battery.inside(case, "--egress", "internet"))
        return text
    finally:
        for door in doors:
            door.shutdown(socket.SHUT_RDWR)
            door.close()
