# Stands in for a sidecar's process: the agent sees a process of the pod, and the test speaks through it.
#
# usage: relay.py AGENT HERE: whoever connects to the unix socket HERE speaks to the one at AGENT.
import os
import select
import socket
import sys

agent, here = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(here + ".new")
listener.listen()
os.rename(here + ".new", here)
while True:
    near, _ = listener.accept()
    far = socket.socket(socket.AF_UNIX)
    try:
        far.connect(agent)
    except OSError:
        near.close()
        continue
    other = {near: far, far: near}
    while True:
        readable, _, _ = select.select([near, far], [], [])
        try:
            octets = readable[0].recv(65536)
            if not octets:
                break
            other[readable[0]].sendall(octets)
        except OSError:
            break
    near.close()
    far.close()
