//! `http_client`: a server in Python answers.

use crate::common::peer::{self, Folder, Peer, on_each_engine};
use crate::{example_on, https_server, run, signed};

/// HTTP as Python serves it, with TLS if it is given a certificate. `/big` is a mebibyte, `/cut` ends
/// in the middle.
const HTTP_SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = sys.argv[1]
    def do_GET(self):
        body = b"x" * (1 << 20) if self.path == "/big" else b"this is " + self.path.encode() + b"\n"
        self.send_response(200 if self.path != "/none" else 404)
        self.send_header("Content-Length", str(len(body) + (self.path == "/cut")))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or self.path == "/cut"
    def setup(self):
        super().setup()
        print("CONNECTED", flush=True)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("READY", server.server_port, flush=True)
server.serve_forever()
"#;

#[test]
fn http_client_asks_python() {
    if !peer::has_python("ssl") {
        return;
    }
    on_each_engine("http_client", |engine, folder| {
        let (cert, key) = signed(folder);
        for (version, is_secure, connections) in
            [("HTTP/1.1", true, 1), ("HTTP/1.1", false, 1), ("HTTP/1.0", true, 4)]
        {
            let files: &[&str] = if is_secure { &[&cert, &key] } else { &[] };
            let server = Peer::start(&mut peer::python(HTTP_SERVER, &[&[version], files].concat()));
            let port = server.wait_for("READY ");
            let scheme = if is_secure { "https" } else { "http" };
            let url = |path: &str| format!("{scheme}://localhost:{port}{path}");
            let text = run(example_on("http_client", engine)
                .args([url("/a"), url("/none"), url("/big"), url("/b?c=d")])
                .args(["--ca", &cert]));
            let text = text.replace(&"x".repeat(1 << 20), "a mebibyte");
            for (path, status) in [("/a", "200 OK"), ("/none", "404 Not Found"), ("/big", "200 OK")]
            {
                assert!(text.contains(&format!("{}: {status} {version}\n", url(path))), "{text}");
            }
            for path in ["/a", "/none", "/b?c=d"] {
                assert!(text.contains(&format!("this is {path}\n")), "{text}");
            }
            assert!(text.contains("a mebibyte") && !text.contains("xx"));
            assert_eq!(server.text().matches("CONNECTED").count(), connections, "{version}");
            // A body that ends too early, and with TLS a server that is not trusted.
            let (status, text) = Peer::start(
                example_on("http_client", engine).args([url("/cut")]).args(["--ca", &cert]),
            )
            .end();
            assert_eq!(status.code(), Some(1), "{text}");
            assert!(text.contains("http_client: "), "{text}");
            if is_secure {
                let other = Folder::new(&format!("other-{engine}"));
                let (other, _) = signed(&other);
                let (status, text) = Peer::start(
                    example_on("http_client", engine).args([url("/a")]).args(["--ca", &other]),
                )
                .end();
                assert_eq!(status.code(), Some(1), "{text}");
                assert!(text.contains("TLS handshake failed"), "{text}");
            }
        }
        // HTTP/2, and somebody who does not listen.
        let (_server, url, cert) = https_server(engine, folder);
        let text =
            run(example_on("http_client", engine).args([&format!("{url}/hello"), "--ca", &cert]));
        assert!(text.contains("200 OK HTTP/2.0") && text.contains("hello, HTTP/2.0\n"), "{text}");
        let nobody = format!("http://{}/", peer::free_addr());
        let (status, text) = Peer::start(example_on("http_client", engine).arg(nobody)).end();
        assert_eq!(status.code(), Some(1));
        assert!(text.contains("refused"), "{text}");
    });
}
