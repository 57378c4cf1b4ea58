use super::*;

fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sidecar.toml");
    std::fs::write(&path, file).unwrap();
    Config::load(Some(&path), env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn the_defaults_set_every_field_and_are_allowed() {
    let mut config = Config::blank();
    assert_eq!(config.apply(&defaults()), vec![]);
    assert_eq!(config, Config::default());
    assert_eq!(config.check(), Vec::<String>::new());
    assert_eq!(config.limits.body_bytes, 1 << 20);
    assert_eq!(config.listen.uds, None);
}

#[test]
fn what_is_printed_can_be_read_again() {
    let config = load("[log.librdkafka]\n\"linger.ms\" = 5", &[]).unwrap();
    assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let config = load(
        "replay = true\n[limits]\nbody_bytes = 2048\nbatch_rows = 5\n[log.librdkafka]\nsecurity.protocol = \"SSL\"",
        &[("FLYWHEEL_SIDECAR_LIMITS_BATCH_ROWS", "6"), ("OTHER", "x"), ("FLYWHEEL_SIDECAR_CONFIG", "x")],
    )
    .unwrap();
    assert!(config.replay);
    assert_eq!((config.limits.body_bytes, config.limits.batch_rows), (2048, 6));
    assert_eq!(config.log.librdkafka, BTreeMap::from([("security.protocol".to_owned(), "SSL".to_owned())]));
    let config = load("", &[("FLYWHEEL_SIDECAR_LOG_LIBRDKAFKA", "linger.ms=5, acks=all")]).unwrap();
    assert_eq!(config.log.librdkafka.len(), 2);
}

#[test]
fn all_faults_come_at_once() {
    let error = load(
        "replay = 1\n[listen]\ntcp = \"0.0.0.0:1\"\n[lissen]\ntcp = \"\"\n[registry]\nusername = \"x\"",
        &[("FLYWHEEL_SIDECAR_SPOOL_MAX_BYTES", "many"), ("FLYWHEEL_SIDECAR_SPOOL_ACCEPTED", "soon")],
    )
    .unwrap_err();
    let text = error.to_string();
    for part in ["`replay`", "0.0.0.0:1", "lissen.tcp", "password_file", "SPOOL_MAX_BYTES", "\"soon\" is none of"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(error.faults.len(), 6, "{text}");
}

#[test]
fn a_fault_of_the_file_names_the_line() {
    assert!(load("replay = \n", &[]).unwrap_err().to_string().contains("line 1"));
}

#[test]
fn addresses_that_kubernetes_links_in_are_no_settings() {
    let links = ["PORT", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_ADMIN", "PORT_8700_TCP_ADDR"];
    let names: Vec<String> = links.iter().map(|link| format!("{ENV_PREFIX}{link}")).collect();
    let env: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "10.0.0.1")).collect();
    assert_eq!(load("", &env), Ok(Config::default()));
    assert!(load("", &[("FLYWHEEL_SIDECAR_PORTS", "1")]).is_err());
}

#[test]
fn secrets_are_not_shown() {
    let config = load(
        "[log.librdkafka]\n\"sasl.password\" = \"hunter2\"\n\"ssl.key.location\" = \"/k\"\n\
         ssl.key.password-file = \"/p\"\n\"ssl.key.pem\" = \"hunter2\"\n\"sasl.oauthbearer.client.secret\" = \"hunter2\"",
        &[],
    )
    .unwrap();
    assert!(!config.to_toml().contains("hunter2"));
    assert!(config.to_toml().contains("/k") && config.to_toml().contains("/p"));
}

#[test]
fn rates_are_by_model() {
    let rates = |pairs: &[(&str, f64)]| pairs.iter().map(|(model, rate)| ((*model).to_owned(), *rate)).collect();
    let config = load("[sampling]\nflights = 0.1\nbags = 1", &[]).unwrap();
    assert_eq!(config.sampling, rates(&[("flights", 0.1), ("bags", 1.0)]));
    assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
    let config = load("[sampling]\nflights = 0.1", &[("FLYWHEEL_SIDECAR_SAMPLING", "bags=0.5, fuel=1e-3")]).unwrap();
    assert_eq!(config.sampling, rates(&[("bags", 0.5), ("fuel", 0.001)]));
    for wrong in ["0", "1.1", "-0.5", "nan", "true", "\"much\"", "2"] {
        let error = load(&format!("[sampling]\nflights = {wrong}"), &[]).unwrap_err().to_string();
        assert!(error.contains("`sampling`: `flights`: a rate is"), "{wrong}: {error}");
    }
}

#[test]
fn giving_up_is_chosen_and_not_by_age_in_a_replay() {
    let file = "[spool]\nwhen_full = \"drop_oldest\"\nmax_age_s = 60\ncompress = \"zstd\"";
    let config = load(file, &[]).unwrap();
    let spool = (config.spool.when_full, config.spool.max_age_s, config.spool.compress);
    assert_eq!(spool, (WhenFull::DropOldest, 60, Compress::Zstd));
    let default = Config::default().spool;
    assert_eq!((default.when_full, default.max_age_s, default.compress), (WhenFull::Refuse, 0, Compress::None));
    let error = load(&format!("replay = true\n{file}"), &[]).unwrap_err().to_string();
    assert!(error.contains("max_age_s"), "{error}");
    assert!(load("[spool]\nmax_age_s = -1", &[]).is_err());
}
