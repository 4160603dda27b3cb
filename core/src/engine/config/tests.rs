use clap::Parser;

use super::*;

fn merged(flags: &[&str], yaml: &str) -> Result<Config, ConfigError> {
    let flags = Flags::try_parse_from([&["understudyd"], flags].concat()).unwrap();
    Config::merge(flags, file::parse("test.yaml".as_ref(), yaml)?)
}

const FILE: &str = "pool: /p\napi: [\"unix:/api\"]\nnbd: [\"unix:/nbd\"]\nlink: tls:0.0.0.0:7001\ntls: /tls\nnode: a\n";

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let flags = ["--api", "unix:/a", "--api", "tls:127.0.0.1:7000", "--shards", "3"];
    let c = merged(&flags, FILE).unwrap();
    assert_eq!(c.api, ["unix:/a", "tls:127.0.0.1:7000"].map(|a| a.parse().unwrap()));
    assert_eq!(c.nbd, [Address::Unix("/nbd".into())]);
    assert_eq!((c.shards, c.io, c.limits), (3, Io::Auto, Limits::default()));
}

#[test]
fn unknown_keys_are_refused_by_name_and_place() {
    for yaml in ["pools: /p\n", "limits: {nbdConnection: 3}\n"] {
        let text = merged(&[], &format!("{FILE}{yaml}")).unwrap_err().to_string();
        assert!(text.contains("unknown field") && text.contains("line"), "{text}");
    }
}

#[test]
fn each_bad_value_is_refused_with_its_key() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&[], "api: [\"unix:/a\"]\n", "pool"),
        (&[], "pool: /p\n", "api"),
        (&["--api", "/run/sock"], FILE, "api"),
        (&["--nbd", "unix:/api"], FILE, "nbd"),
        (&["--shards", "0"], FILE, "shards"),
        (&["--io", "aio"], FILE, "io"),
        (&["--log-format", "xml"], FILE, "logFormat"),
        (&["--log-level", "a=b=c"], FILE, "logLevel"),
        (&[], "pool: /p\napi: unix:/a\nlimits: {groups: 0}\n", "limits.groups"),
    ];
    for (flags, yaml, key) in cases {
        let text = merged(flags, yaml).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{key}: ")), "{key}: {text}");
    }
}

#[test]
fn the_example_in_the_help_is_a_configuration() {
    let example = flags::EXAMPLE.split("FILE:\n").nth(1).unwrap();
    let lines = example.lines().map(|l| l.trim_start_matches("    "));
    let yaml = lines.collect::<Vec<_>>().join("\n");
    merged(&[], &yaml).unwrap();
}

#[test]
fn plaintext_needs_a_flag_and_tls_needs_certificates_and_both_are_told_the_remedy() {
    let base = ["--pool", "/p", "--api", "unix:/api"];
    for (key, address) in [("--nbd", "tcp:h:1"), ("--link", "tcp:h:1"), ("--api", "tcp:h:1")] {
        let flags = [&base[..], &[key, address]].concat();
        let text = merged(&flags, "").unwrap_err().to_string();
        assert!(text.contains("--insecure-plaintext") && text.contains("tls:h:1"), "{text}");
        merged(&[&flags[..], &["--insecure-plaintext"]].concat(), "").unwrap();
        merged(&flags, "insecurePlaintext: true\n").unwrap();
        let flags = [&base[..], &[key, "tls:h:1"]].concat();
        let text = merged(&flags, "").unwrap_err().to_string();
        assert!(text.contains("--tls") && text.contains("tls.key"), "{text}");
        merged(&[&flags[..], &["--tls", "/tls", "--node", "a"]].concat(), "").unwrap();
        let text = merged(&[&base[..], &[key, "tls:b@h:1", "--tls", "/tls"]].concat(), "");
        assert!(text.unwrap_err().to_string().contains("write tls:h:1"));
    }
    let text = merged(&[&base[..], &["--tls", "/tls", "--node", "a b"]].concat(), "").unwrap_err();
    assert!(text.to_string().starts_with("node:"), "{text}");
}
