"""A client of the admin API, of stock tools alone.

usage: admin_client.py local SOCKET PROTO_DIR
       admin_client.py access ADDRESS SERVER_NAME ROOT_PEM RULES_JSON CERTIFICATES...

local: generates the client with grpcio-tools' protoc and does the main job.
access: calls every RPC with every certificate (NAME=KEY_PEM,CHAIN_PEM; NAME=
for none) and prints, as JSON, which ones were not denied.
"""

import importlib
import json
import pathlib
import sys
import tempfile

import grpc
import grpc_tools
from grpc_tools import protoc


def generated(proto_dir):
    out = tempfile.mkdtemp()
    protos = [str(p) for p in pathlib.Path(proto_dir).glob("vip/v1/*.proto")]
    # protoc's own files, as `python -m grpc_tools.protoc` takes them.
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    places = [f"-I{proto_dir}", f"-I{well_known}"]
    code = protoc.main(
        ["protoc", *places, f"--python_out={out}", f"--grpc_python_out={out}", *protos]
    )
    assert code == 0, "protoc failed"
    sys.path.insert(0, out)
    files = ["overview", "vips", "tokens", "types"]
    return (
        {file: importlib.import_module(f"vip.v1.{file}_pb2") for file in files},
        {file: importlib.import_module(f"vip.v1.{file}_pb2_grpc") for file in files},
    )


def local(socket, proto_dir):
    pb, rpc = generated(proto_dir)
    # By default the authority would be the socket's path, which is no valid one
    # (RFC 3986 section 3.2) and refused by strict HTTP/2 servers.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix://{socket}", options) as channel:
        overview = rpc["overview"].OverviewStub(channel)
        vips = rpc["vips"].VipsStub(channel)
        tokens = rpc["tokens"].TokensStub(channel)
        ours, theirs, kinds = pb["vips"], pb["tokens"], pb["types"]
        status = overview.Status(pb["overview"].StatusRequest(), timeout=5)
        assert status.quorum and status.leader, status
        assert [n.name for n in status.nodes] == ["n1", "n2"], status

        spec = ours.VipSpec(name="web", addresses=["10.77.0.100/24"])
        vip = vips.AddVip(ours.AddVipRequest(spec=spec), timeout=20).vip
        assert (vip.name, vip.epoch, vip.answers) == ("web", 1, True), vip
        moved = vips.MoveVip(ours.MoveVipRequest(name="web", to="n2"), timeout=20).vip
        assert (moved.holder, moved.epoch) == ("n2", 2), moved

        wanted = theirs.CreateTokenRequest(role=kinds.ROLE_LEARNER, ttl_s=60)
        token = tokens.CreateToken(wanted, timeout=5)
        assert token.token.startswith("vipt1_learner_"), token.id
        listed = tokens.ListTokens(theirs.ListTokensRequest(), timeout=5).tokens
        is_open = theirs.TOKEN_STATE_OPEN
        assert any(t.id == token.id and t.state == is_open for t in listed), listed
        tokens.RevokeToken(theirs.RevokeTokenRequest(id=token.id), timeout=5)

        events = list(overview.Events(pb["overview"].EventsRequest(after=0), timeout=5))
        assert [e.seq for e in events] == sorted(e.seq for e in events)
        assert any(e.kind == "vip-assigned" and e.cause == kinds.CAUSE_COMMAND for e in events), events

        for bad, code in [
            (ours.VipSpec(name="x", addresses=["nonsense"]), grpc.StatusCode.INVALID_ARGUMENT),
            (ours.VipSpec(name="y", addresses=["10.77.0.100/32"]), grpc.StatusCode.ALREADY_EXISTS),
        ]:
            try:
                vips.AddVip(ours.AddVipRequest(spec=bad), timeout=5)
            except grpc.RpcError as error:
                assert error.code() == code, error
                assert "Nothing was changed" in error.details(), error
            else:
                raise AssertionError("not refused")
        vips.RemoveVip(ours.RemoveVipRequest(name="web"), timeout=20)
        assert not vips.ListVips(ours.ListVipsRequest(), timeout=5).vips

        for method in ("/grpc.health.v1.Health/Check",):
            call = channel.unary_unary(method, lambda _: b"", lambda reply: reply)
            assert call(None, timeout=5) == b"\x08\x01", "not SERVING"
        reflect = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            lambda request: request,
            lambda reply: reply,
        )
        # ServerReflectionRequest { list_services: "" }
        reply = next(reflect(iter([b"\x3a\x00"]), timeout=5))
        assert b"vip.v1.Vips" in reply, reply
    print("ok")


def access(address, server_name, root, rules, certificates):
    paths = json.loads(rules)
    root = pathlib.Path(root).read_bytes()
    result = {}
    for certificate in certificates:
        name, _, files = certificate.partition("=")
        key, chain = (
            [pathlib.Path(f).read_bytes() for f in files.split(",")] if files else (None, None)
        )
        credentials = grpc.ssl_channel_credentials(root, key, chain)
        options = [("grpc.ssl_target_name_override", server_name)]
        open_to = []
        with grpc.secure_channel(address, credentials, options) as channel:
            grpc.channel_ready_future(channel).result(timeout=10)
            for path in paths:
                # Streams answer to a single message, too: denied or not shows.
                call = channel.stream_stream(path, lambda _: b"", lambda reply: reply)
                try:
                    next(iter(call(iter([None]), timeout=3)), None)
                    open_to.append(path)
                except grpc.RpcError as error:
                    denied = error.code() == grpc.StatusCode.PERMISSION_DENIED
                    if not (denied and "not allowed for this caller" in error.details()):
                        open_to.append(path)
        result[name] = open_to
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1] == "local":
        local(*sys.argv[2:])
    else:
        access(*sys.argv[2:6], sys.argv[6:])
