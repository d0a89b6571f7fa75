"""A VPC with three hosts and a route table, in moto, for tests.

vpc.py PLACE ADDRESS PORT [HOST...]   writes what it made to the file PLACE once it answers.
A file PLACE.hold that says `ACTION before HOST` or `ACTION after HOST` has the next such call of
that host's held, before or after it is done: PLACE.held appears then, and it goes on once that is
gone.
With HOSTs, the addresses of those whose network interfaces it made, it is also the VPC's
router: the kernel sends what is for a route's destination to the host that the route names.
"""

import json
import os
import subprocess
import sys
import time

import boto3
from flask import request
from moto.backends import get_backend
from moto.ec2.exceptions import InvalidParameterValueError
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.route_tables import RouteTables
from moto.server import ThreadedMotoServer

REGION, ACCOUNT = "us-east-1", "123456789012"
place, address, port, *hosts = sys.argv[1:]


def with_trials(action):
    """AWS changes nothing in a trial (DryRun), and moto does."""

    def tried(self):
        self.error_on_dryrun()
        return action(self)

    return tried


is_held = []


def held(name, when):
    """Waits here if somebody says so, and whoever asks once more waits too."""
    here = [name, when, request.remote_addr]
    try:
        with open(place + ".hold", encoding="utf-8") as file:
            if file.read().split() == here:
                is_held[:] = here
                os.rename(place + ".hold", place + ".held")
    except FileNotFoundError:
        pass
    while is_held == here and os.path.exists(place + ".held"):
        time.sleep(0.005)


def with_holds(name, action):
    """Somebody may do something in the middle of it."""

    def done(self):
        held(name, "before")
        answer = action(self)
        held(name, "after")
        return answer

    return done


def has(interface, ip):
    return any(ip == own["PrivateIpAddress"] for own in interface.private_ip_addresses)


def assigned(self):
    """AWS has an address at one interface, and moves it if it may be reassigned; moto adds it."""
    may = self._get_bool_param("AllowReassignment", False)
    for ip in self._get_param("PrivateIpAddresses", []):
        for other in self.ec2_backend.enis.values():
            if has(other, ip) and not may:
                raise InvalidParameterValueError(f"{ip}, which is assigned,")
            if has(other, ip):
                unassign(self.ec2_backend, other.id, [ip])
    return assign(self)


def unassigned(backend, interface, ips=None):
    """AWS refuses to unassign what is not assigned there."""
    for ip in ips or []:
        if not has(backend.get_network_interface(interface), ip):
            raise InvalidParameterValueError(f"{ip}, which is not assigned to {interface},")
    return unassign(backend, interface, ips)


def filtered(interface, name, method=None):
    """AWS's filter looks at all addresses."""
    if name == "addresses.private-ip-address":
        return [own["PrivateIpAddress"] for own in interface.private_ip_addresses]
    return filter_value(interface, name, method)


assign = ElasticNetworkInterfaces.assign_private_ip_addresses
unassign = NetworkInterfaceBackend.unassign_private_ip_addresses
filter_value = NetworkInterface.get_filter_value
ElasticNetworkInterfaces.assign_private_ip_addresses = assigned
NetworkInterfaceBackend.unassign_private_ip_addresses = unassigned
NetworkInterface.get_filter_value = filtered
for name, method in [
    ("AssignPrivateIpAddresses", "assign_private_ip_addresses"),
    ("UnassignPrivateIpAddresses", "unassign_private_ip_addresses"),
]:
    action = getattr(ElasticNetworkInterfaces, method)
    setattr(ElasticNetworkInterfaces, method, with_holds(name, action))
RouteTables.describe_route_tables = with_holds(
    "DescribeRouteTables", RouteTables.describe_route_tables
)
RouteTables.create_route = with_trials(RouteTables.create_route)
RouteTables.replace_route = with_trials(with_holds("ReplaceRoute", RouteTables.replace_route))

server = ThreadedMotoServer(ip_address=address, port=int(port), verbose=False)
server.start()
at, port = server.get_host_and_port()
here = f"http://{'127.0.0.1' if at == '0.0.0.0' else at}:{port}"
ec2 = boto3.client(
    "ec2",
    endpoint_url=here,
    region_name=REGION,
    aws_access_key_id="maker",
    aws_secret_access_key="maker",
)
vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.0.0/24")["Subnet"]["SubnetId"]
interfaces = []
for last in range(11, 14):
    made = ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress=f"10.77.0.{last}")
    interfaces.append(made["NetworkInterface"]["NetworkInterfaceId"])
table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
made = {"endpoint": here, "table": table, "interfaces": interfaces}
with open(place + ".new", "w", encoding="utf-8") as file:
    json.dump(made, file)
os.rename(place + ".new", place)

known = {}
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.01)
    if not hosts:
        continue
    routes = get_backend("ec2")[ACCOUNT][REGION].route_tables[table].routes
    ways = {
        route.destination_cidr_block: hosts[interfaces.index(route.interface.id)]
        for route in list(routes)
        if route.interface and route.interface.id in interfaces
    }
    for number, interface in enumerate(interfaces):
        for own in get_backend("ec2")[ACCOUNT][REGION].enis[interface].private_ip_addresses:
            if not own["Primary"]:
                ways[own["PrivateIpAddress"] + "/32"] = hosts[number]
    for to in known.keys() - ways.keys():
        subprocess.run(["ip", "route", "del", to], check=False)
    for to, host in ways.items():
        if known.get(to) != host:
            subprocess.run(["ip", "route", "replace", to, "via", host], check=True)
    known = ways
