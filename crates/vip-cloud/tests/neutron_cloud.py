"""Keystone and Neutron, as they are, with a network of three hosts, for tests.

neutron_cloud.py PLACE ADDRESS PORT IDENTITY_PORT [HOST...]   writes what it made to the file PLACE
once both answer. HOSTs are the addresses of the hosts' ports. Who calls may do what is in the
access rules that are shipped.
A file PLACE.hold that says `METHOD before HOST` or `METHOD after HOST` has the next such call of
that host's to a port held, before or after it is done: PLACE.held appears then, and it goes on
once that is gone; PLACE.done appears once it was done late.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

REGION, PASSWORD = "one", "secret"
RULES = os.path.join(os.path.dirname(__file__), "../../../deploy/cloud/openstack/access-rules.json")
COMMON = """
[DEFAULT]
transport_url = fake:/
[oslo_concurrency]
lock_path = {dir}
"""
KEYSTONE = """
[database]
connection = sqlite:///{dir}/keystone.db
[fernet_tokens]
key_repository = {dir}/tokens
[fernet_receipts]
key_repository = {dir}/tokens
[credential]
key_repository = {dir}/credentials
[cache]
enabled = false
[identity]
password_hash_rounds = 4
"""
NEUTRON = """
[DEFAULT]
auth_strategy = keystone
core_plugin = ml2
api_paste_config = {prefix}/etc/neutron/api-paste.ini
state_path = {dir}
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
dhcp_agent_notification = false
[database]
connection = sqlite:///{dir}/neutron.db
[ml2]
type_drivers = local
tenant_network_types = local
mechanism_drivers =
extension_drivers = port_security
[keystone_authtoken]
auth_type = password
auth_url = {identity}
www_authenticate_uri = {identity}
username = admin
password = {password}
user_domain_id = default
project_name = admin
project_domain_id = default
region_name = {region}
interface = public
service_type = network
"""


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Silent(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def one_at_a_time(app):
    """SQLite has one writer."""
    lock = threading.Lock()

    def served(environ, start):
        with lock:
            return list(app(environ, start))

    return served


def serve(app, address, port):
    server = make_server(address, int(port), app, Server, Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def while_parent_lives():
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.05)


def written(name, text, **values):
    path = f"{values['dir']}/{name}"
    with open(path, "w", encoding="utf-8") as file:
        file.write((COMMON + text).format(**values))
    return path


def keystone(folder, address, port, endpoint):
    import importlib
    import pkgutil

    import keystone as package
    import keystone.conf
    from keystone.cmd import bootstrap
    from keystone.common import fernet_utils
    from keystone.common.sql import core
    from keystone.server.flask import application
    from keystone.server.flask import core as flask
    from sqlalchemy import create_engine

    config = written("keystone.conf", KEYSTONE, dir=folder)
    keystone.conf.configure()
    keystone.conf.CONF(["--config-file", config], project="keystone")
    for name, group in [("tokens", "fernet_tokens"), ("credentials", "credential")]:
        keys = fernet_utils.FernetUtils(f"{folder}/{name}", 2, group)
        keys.create_key_directory()
        keys.initialize_key_repository()
    for module in pkgutil.walk_packages(package.__path__, "keystone."):
        if module.name.endswith(".sql") or module.name.endswith(".sql_model"):
            importlib.import_module(module.name)
    engine = create_engine(f"sqlite:///{folder}/keystone.db")
    core.ModelBase.metadata.create_all(engine)
    engine.dispose()
    made = bootstrap.Bootstrapper()
    made.admin_username, made.admin_password = "admin", PASSWORD
    made.project_name, made.admin_role_name = "admin", "admin"
    made.service_name, made.region_id, made.public_url = "keystone", REGION, endpoint
    made.internal_url, made.admin_url, made.immutable_roles = None, None, None
    made.bootstrap()
    app = flask.setup_app_middleware(application.application_factory("public"))
    serve(one_at_a_time(app), address, port)
    while_parent_lives()


def call(method, url, token=None, body=None):
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json", "X-Auth-Token": token or ""}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
        return answer.headers, json.loads(text) if text else None


def token_of(identity, user, project):
    domain = {"id": "default"}
    who = {"user": {"name": user, "domain": domain, "password": PASSWORD}}
    scope = {"project": {"name": project, "domain": domain}}
    body = {"auth": {"identity": {"methods": ["password"], "password": who}, "scope": scope}}
    return call("POST", f"{identity}/auth/tokens", body=body)[0]["X-Subject-Token"]


def make_people(identity, network):
    """A project, who may change what is in it, who may read that, and a service elsewhere."""
    admin = token_of(identity, "admin", "admin")

    def make(what, **body):
        return call("POST", f"{identity}/{what}s", admin, {what: body})[1][what]["id"]

    def put(path):
        call("PUT", f"{identity}/{path}", admin)

    project = make("project", name="vips", domain_id="default")
    roles = call("GET", f"{identity}/roles", admin)[1]["roles"]
    roles = {role["name"]: role["id"] for role in roles}
    for name, role in [("vipd", "member"), ("reader", "reader")]:
        user = make("user", name=name, domain_id="default", password=PASSWORD)
        put(f"projects/{project}/users/{user}/roles/{roles[role]}")
    service = make("service", name="neutron", type="network")
    make("endpoint", service_id=service, region_id=REGION, interface="public", url=network)
    token = token_of(identity, "vipd", "vips")
    own = call("GET", f"{identity}/users?name=vipd", admin)[1]["users"][0]["id"]
    with open(RULES, encoding="utf-8") as file:
        rules = json.load(file)

    def credential(name, rules):
        body = {"application_credential": {"name": name, "access_rules": rules}}
        made = call("POST", f"{identity}/users/{own}/application_credentials", token, body)[1]
        return [made["application_credential"][key] for key in ("id", "secret")]

    readers = [rule for rule in rules if rule["method"] == "GET"]
    return project, credential("vipd", rules), credential("looks", readers)


is_held = []


def with_holds(app, place):
    """Somebody may do something in the middle of a call."""

    def held(environ, when):
        if "/ports/" not in environ["PATH_INFO"]:
            return False
        here = [environ["REQUEST_METHOD"], when, environ["REMOTE_ADDR"]]
        try:
            with open(place + ".hold", encoding="utf-8") as file:
                if file.read().split() == here:
                    is_held[:] = here
                    os.rename(place + ".hold", place + ".held")
        except FileNotFoundError:
            pass
        was_held = False
        while is_held == here and os.path.exists(place + ".held"):
            was_held = True
            time.sleep(0.005)
        return was_held

    def served(environ, start):
        was_held = held(environ, "before")
        answer = app(environ, start)
        if was_held:
            with open(place + ".done", "w", encoding="utf-8"):
                pass
        held(environ, "after")
        return answer

    return served


def neutron(place, address, port, identity_port, hosts):
    here = "127.0.0.1" if address == "0.0.0.0" else address
    seen_at = os.environ.get("SEEN_AT", here)
    folder = tempfile.mkdtemp(dir=os.path.dirname(place))
    identity = f"http://{here}:{identity_port}/v3"
    network = f"http://{seen_at}:{port}"
    arguments = [folder, address, identity_port, f"http://{seen_at}:{identity_port}/v3"]
    # It ends with this one.
    subprocess.Popen([sys.executable, __file__, "--keystone", *arguments])

    values = {"prefix": sys.prefix, "identity": identity, "password": PASSWORD, "region": REGION}
    config_file = written("neutron.conf", NEUTRON, dir=folder, **values)
    from neutron.common import config

    config.register_common_config_options()
    config.init(["--config-file", config_file])
    from neutron.db.migration.models import head  # noqa: F401, all tables there are
    from neutron_lib.db import model_base
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{folder}/neutron.db")
    model_base.BASEV2.metadata.create_all(engine)
    engine.dispose()
    app = config.load_paste_app("neutron")
    serve(with_holds(one_at_a_time(app), place), address, port)

    while True:
        try:
            project, credential, looks = make_people(identity, network)
            break
        except OSError:
            time.sleep(0.05)
    token, v2 = token_of(identity, "vipd", "vips"), f"http://{here}:{port}/v2.0"

    def make(what, **body):
        return call("POST", f"{v2}/{what}s", token, {what: body})[1][what]

    net = make("network", name="hosts")["id"]
    pool = [{"start": "10.77.0.1", "end": "10.77.0.99"}]
    subnet = {"cidr": "10.77.0.0/24", "ip_version": 4, "allocation_pools": pool, "gateway_ip": None}
    subnet = make("subnet", network_id=net, **subnet)["id"]

    def port_of(ip):
        return make("port", network_id=net, fixed_ips=[{"ip_address": ip}])["id"]

    made = {
        "identity": f"http://{seen_at}:{identity_port}/v3",
        "network": network,
        "project": project,
        "credential": credential,
        "looks": looks,
        "net": net,
        "subnet": subnet,
        "ports": [port_of(ip) for ip in hosts],
        "reserved": port_of("10.77.0.120"),
        "password": PASSWORD,
    }
    with open(place + ".new", "w", encoding="utf-8") as file:
        json.dump(made, file)
    os.rename(place + ".new", place)
    while_parent_lives()


if sys.argv[1] == "--keystone":
    keystone(*sys.argv[2:])
else:
    place, address, port, identity_port, *hosts = sys.argv[1:]
    neutron(place, address, port, identity_port, hosts)
