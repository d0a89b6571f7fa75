#!/bin/sh
# Adds the VIP and its virtual server; run on one node, once or again.
# VIP: the address, with the length of the nodes' prefix.
set -eu
vipctl=${VIPCTL:-vipctl}
$vipctl vip add web --address "${VIP:?an address with its prefix, such as 192.0.2.10/24}" --placement sticky
$vipctl vs add front --vip web --port 80 --real-nodes 80
