use super::*;

const OLD: &str = "old:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW: &str = "2026-11://////////////////////////////////////////8=";

fn fault(text: &str) -> String {
    let error = KeyRing::parse(text).map(|_| ()).unwrap_err();
    // Neither text nor source tells anything of a key.
    for said in [error.to_string(), format!("{error:?}")] {
        assert!(!said.contains("MDEy") && !said.contains("c2hvcnQ") && !said.contains("01234567"), "{said}");
    }
    error.to_string()
}

/// The macs are those that Python's `hmac` and OpenSSL give.
#[test]
fn a_pseudonym_is_key_id_and_mac() {
    let ring = KeyRing::parse(&format!("# newest first\n\n {NEW}\r\n{OLD}\n")).unwrap();
    let of = |value: &str| ring.pseudonyms(value.as_bytes()).collect::<Vec<_>>();
    assert_eq!(
        of("4242 4242 4242 4242"),
        ["2026-11:cVTdHhdWmcvXqh5Li3o-096b2p4Jd_1V8LGILZj5U_c", "old:TTZj5tYiHyYBQYzLfzg-MWi6L0a2knOJmtZ6I_IGAUQ"]
    );
    assert_eq!(
        of(""),
        ["2026-11:sgroDh1w9J6btWYlpMnPAqVUe9Li73zwZX5Z9EzAwBc", "old:eWzTB4rxRjZ1PSaztVVUIv9Vo-Jhz4R7SOlTcbm9CqI"]
    );
    assert_eq!(
        of("Zoë"),
        ["2026-11:Vg-LiZwhaSS6w54bm-HhusIVtgKQS-p-YMs82HNOepo", "old:ZL0LiflQAwbmZvGikUhSG4PNxDh0GB5DLrE0pwjCtno"]
    );
    let mut text = "before".to_owned();
    ring.write_newest(b"", &mut text);
    assert_eq!(text, of("")[0]);
}

#[test]
fn a_key_stays_the_same_key_wherever_it_stands() {
    let (ring, other) = (KeyRing::parse(&format!("{NEW}\n{OLD}")).unwrap(), KeyRing::parse(OLD).unwrap());
    assert_eq!(ring.pseudonyms(b"x").nth(1), other.pseudonyms(b"x").next());
    assert_ne!(ring, other);
    assert_eq!(other, KeyRing::parse(&format!("#\n{OLD}")).unwrap());
    assert_ne!(other, KeyRing::parse(&OLD.replace("MDEy", "MDEz")).unwrap());
}

#[test]
fn what_is_no_key_ring_is_told_without_its_keys() {
    assert!(fault("").contains("no key"));
    assert!(fault("# only this\n").contains("no key"));
    assert!(fault(&format!("{OLD}\nMDEyMzQ1")).contains("line 2: a key is `key_id:base64`"));
    assert!(fault(":MDEyMzQ1").contains("a key id has"));
    assert!(fault(&OLD.replace("old", "o d")).contains("a key id has"));
    assert!(fault(&OLD.replace("old", &"k".repeat(33))).contains("a key id has"));
    assert!(fault(&format!("{OLD}\n{OLD}")).contains("line 2: the key id stands twice"));
    assert!(fault("k:not base64!").contains("not padded base64"));
    assert!(fault("k:c2hvcnQ=").contains("32 bytes at least"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    assert!(matches!(KeyRing::read(&path), Err(KeyFileError::Read(_))));
    for (bytes, expected) in [(vec![0xff], "not text"), (vec![b'#'; 70_000], "longer than")] {
        std::fs::write(&path, bytes).unwrap();
        assert!(KeyRing::read(&path).unwrap_err().to_string().contains(expected));
    }
}

#[test]
fn a_key_is_never_printed() {
    let ring = KeyRing::parse(&format!("{NEW}\n{OLD}")).unwrap();
    assert_eq!(format!("{ring:?}"), r#"["2026-11", "old"]"#);
}

#[test]
fn a_file_that_everybody_can_read_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    std::fs::write(&path, OLD).unwrap();
    for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(is_world_readable(&path), is_open, "{mode:o}");
    }
    assert!(!is_world_readable(&dir.path().join("nothing")));
}
