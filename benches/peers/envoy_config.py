"""The configuration of Envoy: the filter gcp_authn fetches the token from the same metadata server."""

ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
GCP_AUTHN = "type.googleapis.com/envoy.extensions.filters.http.gcp_authn.v3."
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def configuration(proxy):
    from proxies import H1, H2

    stage = proxy.stage
    return {
        "static_resources": {
            "listeners": [_listener("h1", proxy.h1, H1, "HTTP1"), _listener("h2", proxy.h2, H2, "HTTP2")],
            "clusters": [
                _upstream("h1", stage.h1, H1, stage.ca, {"http_protocol_options": {}}),
                _upstream("h2", stage.h2, H2, stage.ca, {"http2_protocol_options": {}}),
                _cluster("metadata", stage.metadata),
            ],
        },
    }


def _listener(name, port, host, codec):
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "host_rewrite_literal": host, "timeout": "0s"}}
    authn = {
        "@type": GCP_AUTHN + "GcpAuthnFilterConfig",
        "cluster": "metadata",
        "timeout": "5s",
        "cache_config": {"cache_size": 100},
    }
    manager = {
        "@type": MANAGER,
        "stat_prefix": name,
        "codec_type": codec,
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.gcp_authn", "typed_config": authn},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}},
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": name, "address": _address(port), "filter_chains": [chain]}


def _upstream(name, port, host, ca, protocol):
    tls = {
        "@type": TLS,
        "sni": host,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "validation_context": {
                "trusted_ca": {"filename": str(ca)},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}],
            },
        },
    }
    audience = {"@type": GCP_AUTHN + "Audience", "url": f"https://{host}"}
    return _cluster(name, port) | {
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "metadata": {"typed_filter_metadata": {"envoy.filters.http.gcp_authn": audience}},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": OPTIONS,
                "explicit_http_config": protocol,
            }
        },
    }


def _cluster(name, port):
    many = {"max_connections": 10000, "max_pending_requests": 10000, "max_requests": 10000}
    return {
        "name": name,
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
