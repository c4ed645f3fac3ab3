#!/usr/bin/env python3
"""Prints one Envoy configuration as JSON: envoy.py ROLE a|b   (roles: tls jwt fresh tcp plain redirected, with -h2 and -cache)"""
import json, os, sys
role, side = sys.argv[1:3]
E = os.environ
base, *opts = role.split("-")
T = "type.googleapis.com/envoy."
def typed(t, **k): return {"@type": T + t, **k}
def addr(port, ip="::1"): return {"socket_address": {"address": ip, "port_value": int(port)}}
def f(x): return {"filename": x}
TLS13 = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
def certs(s): return {"tls_params": TLS13, "tls_certificates": [{"certificate_chain": f(E["CERT_" + s]), "private_key": f(E["KEY_" + s])}]}
L4, HOP = base in ("tcp", "plain", "redirected"), base in ("plain", "redirected")
to = addr(E["DST_PORT"], E["B_HOST"]) if HOP else addr(E["B_PORT"], E["B_HOST"]) if side == "a" else addr(E["DST_PORT"])
cl = {"name": "up", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 1000000}]}}
if base == "redirected": cl |= {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
else: cl |= {"type": "STATIC", "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": to}}]}]}}
if not L4:
    o = {"explicit_http_config": {"http2_protocol_options": {}} if "h2" in opts and side == "a" else {"http_protocol_options": {}}}
    if base == "fresh": o["common_http_protocol_options"] = {"max_requests_per_connection": 1}
    cl["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed("extensions.upstreams.http.v3.HttpProtocolOptions", **o)}
if side == "a" and not HOP:
    ctx = certs("A") | {"validation_context": {"trusted_ca": f(E["CA"]), "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "b.test"}}]}}
    if "h2" in opts: ctx["alpn_protocols"] = ["h2"]
    cl["transport_socket"] = {"name": "tls", "typed_config": typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext", sni="b.test", common_tls_context=ctx)}
if L4:
    fl = {"name": "tcp", "typed_config": typed("extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="t", cluster="up")}
else:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}
    if side == "a" and base != "tls": route["request_headers_to_add"] = [{"header": {"key": "authorization", "value": "Bearer " + E["TOKEN"]}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    hf = []
    if side == "b" and base != "tls":
        prov = {"issuer": "bench", "audiences": ["app"], "forward": False, "local_jwks": f(E["JWKS"])}
        if "cache" in opts: prov["jwt_cache_config"] = {"jwt_cache_size": 1000}
        hf.append({"name": "jwt", "typed_config": typed("extensions.filters.http.jwt_authn.v3.JwtAuthentication", providers={"p": prov}, rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}])})
    hf.append({"name": "router", "typed_config": typed("extensions.filters.http.router.v3.Router", dynamic_stats=False)})
    fl = {"name": "hcm", "typed_config": typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="h", codec_type="AUTO", generate_request_id=False, http_filters=hf,
          route_config={"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]})}
fc = {"filters": [fl]}
if side == "b":
    ctx = certs("B") | {"validation_context": {"trusted_ca": f(E["CA"])}}
    if "h2" in opts: ctx["alpn_protocols"] = ["h2", "http/1.1"]
    fc["transport_socket"] = {"name": "tls", "typed_config": typed("extensions.transport_sockets.tls.v3.DownstreamTlsContext", require_client_certificate=True, common_tls_context=ctx)}
li = {"name": "l", "address": addr(15001, "::") if base == "redirected" else addr(E["A_PORT"]) if side == "a" else addr(E["B_PORT"], E["B_HOST"]), "filter_chains": [fc], "tcp_backlog_size": 4096}
if base == "redirected":
    li["listener_filters"] = [{"name": "original_dst", "typed_config": typed("extensions.filters.listener.original_dst.v3.OriginalDst")}]
print(json.dumps({"static_resources": {"listeners": [li], "clusters": [cl]}}))
