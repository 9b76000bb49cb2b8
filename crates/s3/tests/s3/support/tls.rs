//! Listeners that speak TLS before the server, each with a certificate of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::moto;

/// Makes an authority and certificates, listens, and ends with whoever started it.
const PROGRAM: &str = r"
import datetime, ipaddress, os, socket, ssl, sys, threading
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
folder, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
now = datetime.datetime.now(datetime.timezone.utc)
days = lambda n: datetime.timedelta(days=n)
def named(text):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
def make(subject, issuer, key, signer, names, begin, end, ca):
    builder = (x509.CertificateBuilder().subject_name(named(subject)).issuer_name(named(issuer))
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(begin).not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())
def save(name, *parts):
    path = os.path.join(folder, name)
    with open(path, 'wb') as file:
        file.write(b''.join(parts))
    return path
pem = serialization.Encoding.PEM
root = ec.generate_private_key(ec.SECP256R1())
authority = make('authority', 'authority', root, root, [], now - days(900), now + days(900), True)
save('ca.pem', authority.public_bytes(pem))
here = [x509.DNSName('localhost'), x509.IPAddress(ipaddress.ip_address('127.0.0.1'))]
def pump(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass
    for end in (one, other):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(client, context):
    try:
        client = context.wrap_socket(client, server_side=True)
    except (OSError, ssl.SSLError):
        return
    server = socket.create_connection((host, port))
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)
def listen(listener, context):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, context), daemon=True).start()
ports = []
for name, names, begin, end in [
    ('good', here, now - days(1), now + days(1)),
    ('other', [x509.DNSName('other.example')], now - days(1), now + days(1)),
    ('old', here, now - days(9), now - days(2)),
    ('early', here, now + days(2), now + days(9)),
]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = make(name, 'authority', key, root, names, begin, end, False)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = save(name, certificate.public_bytes(pem), private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    listener = socket.create_server(('127.0.0.1', 0))
    ports.append(str(listener.getsockname()[1]))
    threading.Thread(target=listen, args=(listener, context), daemon=True).start()
print(' '.join(ports), flush=True)
sys.stdin.buffer.read()
os._exit(0)
";

/// Running listeners; their end is that of this process, or this value's.
pub(crate) struct Tls {
    /// Of a certificate for `localhost` and 127.0.0.1; for another name; that has expired; that is
    /// not valid yet.
    pub(crate) good: String,
    pub(crate) other: String,
    pub(crate) old: String,
    pub(crate) early: String,
    /// The authority's certificate.
    pub(crate) ca_file: PathBuf,
    _folder: TempDir,
    child: Child,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Tls {
    /// Listeners before the server.
    pub(crate) fn start(server: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (host, port) = server.split_once(':').expect("host and port");
        let mut child = Command::new(moto::python())
            .args(["-c", PROGRAM])
            .arg(folder.path())
            .args([host, port])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        let said = child.stdout.take().expect("it is a pipe");
        BufReader::new(said)
            .read_line(&mut line)
            .expect("it says where it listens");
        let ports: Vec<&str> = line.split_whitespace().collect();
        let [good, other, old, early] = ports[..] else {
            panic!("{line:?}")
        };
        let at = |port: &str| format!("https://127.0.0.1:{port}");
        Self {
            good: at(good),
            other: at(other),
            old: at(old),
            early: at(early),
            ca_file: folder.path().join("ca.pem"),
            _folder: folder,
            child,
        }
    }
}
