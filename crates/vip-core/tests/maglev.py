"""Tables as the paper describes them, written from it alone.

Reads plans, a JSON value a line, and answers each with the indices of its slots.
"""

import hashlib
import ipaddress
import json
import sys


def permutation(seed, size, ip, port):
    address = ipaddress.ip_address(ip)
    octets = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    text = seed.to_bytes(8, "big") + octets + port.to_bytes(2, "big")
    digest = hashlib.sha256(text).digest()
    offset = int.from_bytes(digest[:8], "big") % size
    skip = int.from_bytes(digest[8:16], "big") % (size - 1) + 1
    return [(offset + j * skip) % size for j in range(size)]


def turns(weights):
    """Whose turn it is, round by round: all of them first, then by what was saved up."""
    most = max(weights)
    yield from range(len(weights))
    rounds = 0
    while True:
        rounds += 1
        for i, weight in enumerate(weights):
            if rounds * weight // most > (rounds - 1) * weight // most:
                yield i


def populate(plan):
    size = plan["size"]
    reals = [(ipaddress.ip_address(m["ip"]), m["port"], m["weight"], i)
               for i, m in enumerate(plan["reals"]) if m["weight"]]
    reals.sort(key=lambda m: (m[0].version, m[0], m[1]))
    if not reals:
        return []
    orders = [permutation(plan["seed"], size, str(m[0]), m[1]) for m in reals]
    following = [0] * len(reals)
    entry = [-1] * size
    filled = 0
    for i in turns([m[2] for m in reals]):
        c = orders[i][following[i]]
        while entry[c] >= 0:
            following[i] += 1
            c = orders[i][following[i]]
        entry[c] = reals[i][3]
        following[i] += 1
        filled += 1
        if filled == size:
            return entry


for line in sys.stdin:
    print(json.dumps(populate(json.loads(line))), flush=True)
