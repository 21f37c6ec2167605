"""A hardware router on a VLAN, as far as a proof needs one: the kernel of a test machine may have no 802.1Q.

vlan-router.py INTERFACE VID ROUTERS TARGET SOURCE VIA [BYTES]
  VID      tag of its frames; 0: none
  ROUTERS  its addresses with a MAC each, IP=MAC,IP=MAC: asked for them (ARP), it answers
  TARGET   what is pinged, from SOURCE (any address) through the router VIA (one of ROUTERS)
  BYTES    of the ICMP echo's data; 56

Prints one line of JSON: {"reply": true, "vid": TAG, "to": MAC OF THE ROUTER THAT IT CAME BACK TO, "bytes": N}, or
{"reply": false, "seen": [...]} after ten seconds. Frames are tagged by hand, and tags are read as the kernel hands them
over (packet(7), PACKET_AUXDATA; IEEE 802.1Q).
"""
import json
import os
import socket
import struct
import sys
import time

ETH_P_ALL, ARP, IPV4, DOT1Q = 0x0003, 0x0806, 0x0800, 0x8100
SOL_PACKET, PACKET_AUXDATA, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 8, 1, 1
TP_STATUS_VLAN_VALID = 1 << 4

interface, vid, routers, target, source, via = sys.argv[1:7]
size = int(sys.argv[7]) if len(sys.argv) > 7 else 56
vid = int(vid)
macs = {ip: bytes.fromhex(mac.replace(":", "")) for ip, mac in (r.split("=") for r in routers.split(","))}

s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
s.bind((interface, 0))
s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
membership = struct.pack("iHH8s", socket.if_nametoindex(interface), PACKET_MR_PROMISC, 0, b"")
s.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send(dst, src, kind, payload):
    tag = struct.pack("!HH", DOT1Q, vid) if vid else b""
    s.send(dst + src + tag + struct.pack("!H", kind) + payload)


def arp(op, sha, spa, tha, tpa):
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, op) + sha + socket.inet_aton(spa) + tha + socket.inet_aton(tpa)


def echo(ident, seq):
    data = bytes(i % 256 for i in range(size))
    head = struct.pack("!BBHHH", 8, 0, 0, ident, seq)
    icmp = struct.pack("!BBHHH", 8, 0, checksum(head + data), ident, seq) + data
    ip = lambda c: struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 1, 0x4000, 64, 1, c) + socket.inet_aton(
        source
    ) + socket.inet_aton(target)
    return ip(checksum(ip(0))) + icmp


def receive():
    """(tag or 0, destination, type, payload) of the next frame that is not our own; None after a while."""
    s.settimeout(0.2)
    try:
        frame, control, _, address = s.recvmsg(65535, 256)
    except socket.timeout:
        return None
    if address[2] == socket.PACKET_OUTGOING:
        return None
    tag = 0
    for level, kind, data in control:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", data[:20])
            if status & TP_STATUS_VLAN_VALID:
                tag = tci & 0x0FFF
    kind, rest = struct.unpack("!H", frame[12:14])[0], frame[14:]
    if kind == DOT1Q:
        tag, kind, rest = struct.unpack("!H", rest[:2])[0] & 0x0FFF, struct.unpack("!H", rest[2:4])[0], rest[4:]
    return tag, frame[0:6], kind, rest


ident, seen, theirs = os.getpid() & 0xFFFF, [], None
began, asked, seq = time.monotonic(), 0.0, 0
while time.monotonic() - began < 10:
    if time.monotonic() - asked > 1:
        asked, seq = time.monotonic(), seq + 1
        if theirs is None:
            send(b"\xff" * 6, macs[via], ARP, arp(1, macs[via], via, b"\0" * 6, target))
        else:
            send(theirs, macs[via], IPV4, echo(ident, seq))
    got = receive()
    if got is None:
        continue
    tag, dst, kind, rest = got
    if kind == ARP and len(rest) >= 28:
        op, sender, spa = struct.unpack("!H", rest[6:8])[0], rest[8:14], socket.inet_ntoa(rest[14:18])
        wanted = socket.inet_ntoa(rest[24:28])
        seen.append(f"tag {tag}: ARP {op} {spa} -> {wanted}")
        if tag != vid:
            continue
        if op == 1 and wanted in macs:
            send(sender, macs[wanted], ARP, arp(2, macs[wanted], wanted, sender, spa))
        elif op == 2 and spa == target and theirs is None:
            theirs, asked = sender, 0.0
    elif kind == IPV4 and len(rest) >= 28 and rest[9] == 1:
        seen.append(f"tag {tag}: ICMP {rest[20]} from {socket.inet_ntoa(rest[12:16])}")
        mine = struct.unpack("!H", rest[24:26])[0] == ident
        if rest[20] == 0 and mine and socket.inet_ntoa(rest[12:16]) == target:
            total = struct.unpack("!H", rest[2:4])[0]
            print(json.dumps({"reply": True, "vid": tag, "to": dst.hex(":"), "bytes": total - 28}))
            sys.exit(0)
print(json.dumps({"reply": False, "seen": seen[-20:]}))
sys.exit(1)
