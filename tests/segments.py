"""One peer of two TCP stacks: sends each the same TCP segments in raw frames, of IPv4 or IPv6, and keeps what comes back, for segments_test.py.

Model: a script is a list of steps; a step is one segment to the stack, whose numbers count from the initial ones; scripts run side by side, each on a
port of the peer's own, and all of one step wait together. What a stack answered in a step is an Answer."""
import collections
import os
import random
import socket
import struct
import time

PEER_MAC = b"\2\0\0\0\0\1"
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
LETTERS = "FSRPAU"


def checksum(data):
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class Step:
    """A segment to the stack. `seq` counts from the peer's initial number, `ack` from behind the stack's newest byte seen, plus this; None: no ACK.
    `ts`: of the timestamp, counted from what is due; None: no option."""

    def __init__(self, flags="A", seq=None, ack=0, data=0, window=8192, ts=0, urgent=0, options=(), sack=None, note=""):
        self.flags = sum(1 << LETTERS.index(letter) for letter in flags)
        self.seq, self.ack, self.data, self.window, self.ts, self.urgent, self.note = seq, ack, data, window, ts, urgent, note
        self.options, self.sack = options, sack

    def __str__(self):
        flags = "".join(letter for i, letter in enumerate(LETTERS) if self.flags >> i & 1) or "-"
        return f"> {flags} seq={self.seq} ack={self.ack:+} data={self.data} window={self.window} ts={self.ts} {self.note}".rstrip()


class Script:
    """`options` of the SYN: "m" MSS 1000, "w" window scale 2, "t" timestamps, "s" SACK. `port`: of the stack's server. `active`: the stack
    connects (asked by the server on COMMAND_PORT), and its SYN is the first answer."""

    def __init__(self, name, port, steps, options="mwts", active=False, initial=0x1000):
        self.name, self.port, self.steps, self.options, self.active, self.initial = name, port, steps, options, active, initial


def syn_options(letters, ts):
    found = b""
    if "m" in letters:
        found += struct.pack("!BBH", 2, 4, 1000)
    if "s" in letters:
        found += b"\4\2"
    if "t" in letters and ts is not None:
        found += struct.pack("!BBII", 8, 10, *ts)
    if "w" in letters:
        found += b"\3\3\2"
    return found + b"\1" * (-len(found) % 4)


class Line:
    """A script's connection on one side."""

    def __init__(self, script, port):
        self.script, self.port, self.remote_port = script, port, script.port
        self.theirs = None  # the stack's initial number
        self.highest = 1  # behind its newest byte, counted from that
        self.seen = set()  # bytes that came already, counted so
        self.seen_fin = self.seen_syn = False
        self.ts_echo = 0
        self.clock = 1000
        self.stamped = "t" in script.options
        self.frames = []


class Ipv4:
    """Packets between the peer and a stack's address; how each finds the other (RFC 826)."""
    TYPE = b"\x08\0"

    def __init__(self, address, peer):
        self.address, self.peer = socket.inet_pton(socket.AF_INET, address), socket.inet_pton(socket.AF_INET, peer)

    def pseudo_header(self, protocol, length):
        return self.peer + self.address + struct.pack("!HH", protocol, length)

    def packet(self, protocol, payload):
        def header(total):
            return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, total) + self.peer + self.address
        return header(checksum(header(0))) + payload

    def segment(self, frame):
        """The TCP segment of a frame from the stack; None: it is something else."""
        if frame[12:14] == self.TYPE and frame[23] == 6 and frame[26:30] == self.address:
            packet = frame[14:14 + struct.unpack("!H", frame[16:18])[0]]
            return packet[(packet[0] & 15) * 4:]
        return None

    def arp(self, operation, to_mac):
        return (to_mac + PEER_MAC + b"\x08\6" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + PEER_MAC + self.peer +
                (b"\0" * 6 if operation == 1 else to_mac) + self.address)

    def question(self):
        return self.arp(1, b"\xff" * 6)

    def neighbour(self, frame):
        """(the stack's MAC address, a frame to answer it with or None); None: no frame for that."""
        if frame[12:14] == b"\x08\6" and frame[28:32] != self.peer and frame[38:42] == self.peer:
            mac = frame[22:28]
            return mac, self.arp(2, mac) if frame[20:22] == b"\0\1" else None
        return None


class Ipv6:
    """The same of RFC 8200 and 4861."""
    TYPE = b"\x86\xdd"

    def __init__(self, address, peer):
        self.address, self.peer = socket.inet_pton(socket.AF_INET6, address), socket.inet_pton(socket.AF_INET6, peer)

    def pseudo_header(self, protocol, length):
        return self.peer + self.address + struct.pack("!II", length, protocol)

    def packet(self, protocol, payload, destination=None, hop_limit=64):
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hop_limit) + self.peer + (destination or self.address) + payload

    def segment(self, frame):
        if frame[12:14] == self.TYPE and frame[20] == 6 and frame[22:38] == self.address:
            return frame[54:54 + struct.unpack("!H", frame[18:20])[0]]
        return None

    def discovery(self, kind, flags, target, option, destination, to_mac):
        """A solicitation (135) or advertisement (136), which tells the peer's MAC address."""
        body = struct.pack("!I", flags) + target + bytes((option, 1)) + PEER_MAC
        pseudo = self.peer + destination + struct.pack("!II", 4 + len(body), 58)
        total = checksum(pseudo + struct.pack("!BBH", kind, 0, 0) + body)
        return to_mac + PEER_MAC + self.TYPE + self.packet(58, struct.pack("!BBH", kind, 0, total) + body, destination, 255)

    def question(self):
        group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + self.address[13:]
        return self.discovery(135, 0, self.address, 1, group, b"\x33\x33" + group[12:])

    def neighbour(self, frame):
        if frame[12:14] != self.TYPE or frame[20] != 58 or len(frame) < 78:
            return None
        mac, source, kind, target = frame[6:12], frame[22:38], frame[54], frame[62:78]
        if kind == 136 and target == self.address:
            return mac, None
        if kind == 135 and target == self.peer:  # from any address of the stack's
            return mac, self.discovery(136, 0x6000_0000, self.peer, 2, source, mac)
        return None


class Side:
    """One stack: `fd` carries its frames (a TAP's descriptor or a packet socket)."""

    def __init__(self, name, fd, address, peer):
        self.name, self.fd = name, fd
        self.ip = (Ipv6 if ":" in address else Ipv4)(address, peer)
        self.mac = None
        self.lines = {}

    def send_frame(self, frame):
        os.write(self.fd, frame)

    def send_packet(self, protocol, payload_with):
        """`payload_with(checksum)`: the payload, which has that in its header."""
        empty = payload_with(0)
        total = checksum(self.ip.pseudo_header(protocol, len(empty)) + empty)
        self.send_frame(self.mac + PEER_MAC + self.ip.TYPE + self.ip.packet(protocol, payload_with(total)))

    def resolve(self):
        deadline = time.monotonic() + 20
        while self.mac is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} does not say where it is")
            self.send_frame(self.ip.question())
            time.sleep(0.05)
            self.receive()

    def send(self, line, step):
        opening = step.flags & SYN and not step.flags & RST
        ts = None
        if line.stamped and step.ts is not None:
            line.clock += 10
            ts = (line.clock + step.ts & 0xffffffff, line.ts_echo if step.flags & ACK or line.theirs is None else 0)
        if opening:
            options = syn_options(line.script.options, ts)
        else:
            options = struct.pack("!BBBBII", 1, 1, 8, 10, *ts) if ts else b""
            if step.sack:
                options += struct.pack("!BBBBII", 1, 1, 5, 10, *((line.theirs or 0) + at & 0xffffffff for at in step.sack))
        data = bytes((step.seq or 0) + i & 0xff for i in range(step.data))
        ack = (line.theirs or 0) + line.highest + step.ack & 0xffffffff if step.flags & ACK else 0

        def tcp(total):
            return struct.pack("!HHIIBBHHH", line.port, line.remote_port, line.script.initial + (step.seq or 0) & 0xffffffff, ack,
                               (20 + len(options)) << 2, step.flags, step.window, total, step.urgent) + options + data

        self.send_packet(6, tcp)

    def receive(self):
        while True:
            try:
                frame = os.read(self.fd, 4096)
            except BlockingIOError:
                return
            if found := self.ip.neighbour(frame):
                self.mac, answer = found
                if answer:
                    self.send_frame(answer)
            elif segment := self.ip.segment(frame):
                line = self.lines.get(struct.unpack("!H", segment[2:4])[0])
                if line is not None:
                    line.frames.append(segment)


# What a stack answered in a step. `data`: [begin, end) of its bytes, new ones only, put together; `ack`: the last one; `sack`: all blocks;
# `syns`: (flags, whether with another initial number, ack, options); `answered`: whether anything came but retransmissions.
Answer = collections.namedtuple("Answer", "answered resets syns data text fin ack sack closed_window")


def options_of(segment):
    found, at, end = {}, 20, (segment[12] >> 4) * 4
    while at < end and segment[at] != 0:
        if segment[at] == 1:
            at += 1
            continue
        found[segment[at]] = segment[at + 2:at + segment[at + 1]]
        at += segment[at + 1]
    return found


def flags_text(flags):
    return "".join(letter for i, letter in enumerate(LETTERS) if flags >> i & 1)


def answer(line, sent):
    """What came on this line since the last call, `sent` being the step before it."""
    resets, syns, ranges, text = [], [], [], b""
    fin, ack, sack, answered, closed = None, None, set(), False, None
    for segment in line.frames:
        remote_port, _, seq, acknowledged, _, flags, window = struct.unpack("!HHIIBBH", segment[:16])
        options, data = options_of(segment), segment[(segment[12] >> 4) * 4:]
        ours = acknowledged - line.script.initial & 0xffffffff if flags & ACK else None
        if flags & RST:
            # Its own number decides (RFC 5961 section 3); only without one does the ACK field.
            resets.append((seq - line.theirs & 0xffffffff if line.theirs is not None else seq) if seq else ("ack", ours))
            answered = True
            continue
        if flags & SYN:
            renewed = line.theirs not in (None, seq)
            if line.theirs != seq:  # a connection, or the next one of the same ends
                line.theirs, line.remote_port = seq, remote_port
                line.highest, line.seen, line.seen_fin, line.seen_syn = 1, set(), False, False
            again = line.seen_syn and sent is not None and not sent.flags & SYN
            line.seen_syn = True
            if not again:
                kinds = tuple(sorted(options)) + ((struct.unpack("!H", options[2])[0],) if 2 in options else ())
                syns.append((flags_text(flags & ~(64 | 128)), renewed, ours, kinds))
                answered = True
        if 8 in options:
            line.ts_echo = struct.unpack("!I", options[8][:4])[0]
        begin = seq - (line.theirs or 0) & 0xffffffff
        end = begin + len(data)
        again = False
        if data and not line.seen.isdisjoint((begin, end - 1)) and line.seen.issuperset(range(begin, end)):
            again = True
        elif data:
            line.seen.update(range(begin, end))
            text += data
            if ranges and ranges[-1][1] == begin:
                ranges[-1][1] = end
            else:
                ranges.append([begin, end])
        if flags & FIN:
            again = again or line.seen_fin
            if not line.seen_fin:
                fin, line.seen_fin = end, True
        line.highest = max(line.highest, end + (flags & FIN))
        if not flags & SYN:
            ack, closed = ours, window == 0
            blocks = options.get(5, b"")
            sack.update((b - line.script.initial & 0xffffffff, e - line.script.initial & 0xffffffff)
                        for b, e in struct.iter_unpack("!II", blocks))
            answered = answered or not again
    line.frames.clear()
    if not answered:
        return Answer(False, (), (), (), b"", None, None, (), None)
    if resets:
        ack, sack, closed = None, (), None
    return Answer(True, tuple(dict.fromkeys(resets)), tuple(dict.fromkeys(syns)), tuple(map(tuple, ranges)), text, fin, ack, tuple(sorted(sack)), closed)


def run(sides, scripts, ports, command_port, step_seconds):
    """{side's name: [answers of each script]}; `ports` gives each script a port of the peer's."""
    numbered = [(script, next(ports)) for script in scripts]
    for side in sides:
        side.lines = {port: Line(script, port) for script, port in numbered}
    answers = {side.name: [[] for _ in scripts] for side in sides}
    for at in range(-1, max(len(script.steps) for script in scripts)):
        for i, (script, port) in enumerate(numbered):
            for side in sides:
                if at < 0 and script.active:
                    command(side, command_port, port)
                elif 0 <= at < len(script.steps):
                    side.send(side.lines[port], script.steps[at])
        end = time.monotonic() + step_seconds
        while time.monotonic() < end:
            for side in sides:
                side.receive()
            time.sleep(0.002)
        for side in sides:
            for i, (script, port) in enumerate(numbered):
                sent = script.steps[at] if 0 <= at < len(script.steps) else None
                if at < len(script.steps):
                    answers[side.name][i].append(answer(side.lines[port], sent))
    for side in sides:
        for _, port in numbered:  # nothing is left: a reset that each stack takes
            line = side.lines[port]
            reset = Step("R", seq=0)
            for seq in sorted({a.ack for a in answers[side.name][numbered.index((line.script, port))] if a.ack is not None} | {1}):
                reset.seq = seq
                side.send(line, reset)
    return answers


def command(side, command_port, port):
    """Asks the server by a datagram to connect to the peer's `port`."""
    text = str(port).encode()
    side.send_packet(17, lambda total: struct.pack("!HHHH", 9, command_port, 8 + len(text), total) + text)


def random_script(seed, ports, restless):
    """A handshake, and segments that a peer might send or should not. `restless`: ports whose server ends connections, or its half, by itself; there
    a SYN begins another one, whose numbers the rest would not fit. Not in it, because Linux itself has two minds: data with an ACK that is too old (its header
    prediction takes it, what is behind that does not), segments without ACK outside the window and ACKs of the future after close (established it is
    silent to the former, closed to the latter); and answers of more than a segment, of which less may leave after a timeout."""
    r = random.Random(seed)
    port = r.choice(ports)
    options = "".join(letter for letter in "mwts" if r.random() < 0.8)
    at = 1  # the peer's next byte
    steps = [Step("S", seq=0, ack=0), Step("A", seq=1)]
    if r.random() < 0.1:  # its last ACK with data
        steps[-1] = Step("PA", seq=1, data=10)
        at = 11
    ended = gap = False
    for _ in range(r.randrange(4, 12)):
        size = r.choice((1, 10, 100, 400))
        kind = r.randrange(26)
        if ended and kind in (0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 24, 25):  # a peer has one end, and says nothing behind it
            kind = 9
        if (kind in (9, 16, 17, 25) and port in restless) or (kind == 18 and gap) or (kind == 12 and (gap or port in restless)):
            kind = 20
        gap = gap or kind == 6
        ended = ended or kind in (11, 12)
        if kind < 6:
            steps.append(Step("PA", seq=at, data=size, note="in order"))
            at += size
        elif kind == 6:
            steps.append(Step("A", seq=at + size, data=size, note="behind a gap"))
        elif kind == 7:
            steps.append(Step("A", seq=at - min(at - 1, 5), data=size, note="overlapping"))
            at = max(at, at - min(at - 1, 5) + size)
        elif kind == 8:
            steps.append(Step("A", seq=max(1, at - size), data=min(size, at - 1), note="old"))
        elif kind == 9:
            steps.append(Step("A", seq=at, ack=r.choice((1000, 1, 100_000)), note="acknowledges the future"))
        elif kind == 10:
            steps.append(Step("A", seq=at, ack=-r.choice((1, 1000, 1 << 30)), note="acknowledges the past"))
        elif kind == 11:
            steps.append(Step("FA", seq=at, data=r.choice((0, size)), note="end"))
            at += steps[-1].data + 1
        elif kind == 12:
            steps += [Step("FA", seq=at + size, data=5, note="end behind a gap"), Step("A", seq=at, data=size, note="the gap"), Step("A", seq=at + size + 6)]
            break
        elif kind == 13:
            steps += [Step("R", seq=at, note="reset"), Step("A", seq=at)]
            break
        elif kind == 14:
            steps.append(Step(r.choice(("R", "RA")), seq=at + r.choice((1, 100, 5000)), note="reset inside the window"))
        elif kind == 15:
            steps.append(Step("R", seq=at + r.choice((-1, -1000, 1 << 30)), note="reset outside"))
        elif kind == 16:
            steps.append(Step("S", seq=at + r.choice((0, 1, -1, 100)), note="SYN"))
        elif kind == 17:
            steps.append(Step("SA", seq=at + r.choice((0, -1, 100)), note="SYN and ACK"))
        elif kind == 18:
            steps.append(Step(r.choice(("", "P", "U")), seq=at, data=r.choice((0, size)), note="without ACK"))
        elif kind == 19:
            steps.append(Step("A", seq=at - 1, data=r.choice((0, 1)) if at > 1 else 0, note="keep-alive"))
        elif kind == 20:
            steps.append(Step("A", seq=at, window=r.choice((0, 1, 8192)), note="window"))
        elif kind == 21:
            steps.append(Step("A", seq=at + (1 << 24), data=size, note="far beyond the window"))
        elif kind == 22:
            steps.append(Step("A", seq=at, data=size, ts=-100_000, note="an old timestamp"))
            at += 0 if "t" in options else size
        elif kind == 23:
            steps.append(Step("A", seq=at, window=4, note="a narrow window"))
        elif kind == 24:
            steps.append(Step("UA", seq=at, data=size, urgent=r.choice((1, size, size + 10)), note="urgent"))
            at += size
        else:
            steps.append(Step("SFA", seq=at, data=size, note="everything at once"))
    return Script(f"seed {seed}", port, steps, options, initial=r.choice((0x1000, 0xffff_ff00)))
