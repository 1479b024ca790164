//! Certificates and keys from files, and authorities to trust.

use std::io::ErrorKind;

use tamam::tls;

use crate::common::peer::Folder;
use crate::keys::KEYS;

#[test]
fn certificates_and_keys_are_loaded_from_files() {
    let folder = Folder::new("files");
    let chain = format!("{}{}", KEYS.server.certificate_pem, KEYS.root_pem);
    let chain = tls::load_certs(folder.write("chain.pem", &chain)).expect("two of them");
    assert_eq!(chain, [KEYS.server.certificate.clone(), KEYS.root.clone()]);
    let key = tls::load_key(folder.write("key.pem", KEYS.server.key_pem)).expect("a key");
    assert_eq!(key, KEYS.server.key);
    tls::server_config(chain.clone(), key).expect("they belong together");
    let other = tls::load_key(folder.write("other.pem", KEYS.client.key_pem)).expect("a key");
    let error = tls::server_config(chain, other).expect_err("another's key");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let missing = folder.file("missing.pem");
    for error in [
        tls::load_certs(&missing).expect_err("not there"),
        tls::load_key(&missing).map(drop).expect_err("not there"),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("missing.pem"), "{error}");
    }
    let empty = folder.write("empty.pem", "nothing here");
    for error in [
        tls::load_certs(&empty).expect_err("nothing in it"),
        tls::load_key(&empty).map(drop).expect_err("nothing in it"),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("empty.pem"), "{error}");
    }
}

#[test]
fn authorities_to_trust_are_there() {
    assert!(tls::webpki_roots().len() > 50);
    tls::client_config(tls::webpki_roots()).expect("versions");
    match tls::native_roots() {
        Ok(roots) => assert!(!roots.is_empty()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            println!("skipped: {error}");
        }
    }
}

#[test]
fn a_server_is_told_what_is_wrong_with_its_files() {
    let certificate = || vec![KEYS.server.certificate.clone()];
    let none = tls::server_config(Vec::new(), KEYS.server.key.clone_key());
    let others = tls::server_config(certificate(), KEYS.client.key.clone_key());
    for (config, what) in [(none, "certificate"), (others, "Mismatch")] {
        let error = config.expect_err("not a pair");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(what), "{error}");
    }
    tls::server_config(certificate(), KEYS.server.key.clone_key()).expect("a pair");
}
