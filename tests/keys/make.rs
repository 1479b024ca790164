//! Makes the keys and certificates of this folder anew. They are for the tests and for the examples in
//! the docs, and are no secret. They do not expire, so that this seldom has to run.
//!
//!     cargo run -p tamam-ecosystem --example make_keys
//!
//! `root` signs `server`, for server.test, and `client`, for client.test; `localhost` signs itself. The
//! key of `root` is not kept.

use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    generate_simple_self_signed,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the root");
    let root = params.self_signed(&root_key)?;
    std::fs::write(folder().join("root.pem"), root.pem())?;

    let issuer = Issuer::new(params, root_key);
    for name in ["server", "client"] {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([format!("{name}.test")])?;
        write(name, &params.signed_by(&key, &issuer)?, &key)?;
    }
    let localhost = generate_simple_self_signed(["localhost".to_owned()])?;
    write("localhost", &localhost.cert, &localhost.signing_key)?;
    Ok(())
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../keys"))
}

fn write(name: &str, certificate: &Certificate, key: &KeyPair) -> std::io::Result<()> {
    std::fs::write(folder().join(name).with_extension("pem"), certificate.pem())?;
    std::fs::write(folder().join(name).with_extension("key"), key.serialize_pem())
}
