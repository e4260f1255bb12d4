use serin_core::access::Role;

use super::*;

pub(super) fn load(yaml: &str, variables: &[(&str, &str)], options: Options) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serin.yaml");
    std::fs::write(&path, yaml).unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = Options { file: Some(path.clone()), ..options };
    let place = path.display().to_string();
    Settings::load(&options, &variables).map_err(|error| error.to_string().replace(&place, "serin.yaml"))
}

#[test]
fn without_anything_the_defaults_hold() {
    let settings = Settings::load(&Options::default(), &BTreeMap::new()).unwrap();
    insta::assert_snapshot!(settings.print(), @r"
    dataDir: serin-data  # default
    drain: 30s  # default
    retention: 7d  # default
    alerts:
      rules: []  # default
      expireAfter: 5h  # default
    control:
      listen: 127.0.0.1:8981  # default
      hosts: []  # default
      open: false  # default
      maxRequestsPerMinute: 6000  # default
    data:
      listen: 127.0.0.1:8980  # default
      sessionHeaders: []  # default
      systemMessage: prepend  # default
      includeUsage: true  # default
      allowVersionOverride: false  # default
      ofrepPromptText: false  # default
      ofrepOrigins: []  # default
      bodyLimit: 32MiB  # default
      maxPins: 2000000  # default
      maxRequestsPerMinute: 0  # default
      hosts: []  # default
      keys: open  # default
    ingest:
      queue: 65536  # default
    log:
      format: text  # default
      filter: info  # default
    notify:
      receivers: []  # default
      severities: {}  # default
      holdLasts: 8h  # default
      giveUpAfter: 24h  # default
      linkLifetime: 24h  # default
    oidc:
      scopes: []  # default
      claim: groups  # default
      sessionLasts: 12h  # default
      roles: []  # default
    provider:
      baseUrl: https://api.openai.com/v1  # default
      protocol: both  # default
      http2: auto  # default
      maxRequests: 10000  # default
      maxWaiting: 1000  # default
      connectRetries: 1  # default
      connectTimeout: 10s  # default
      firstByteTimeout: 10m  # default
      stallTimeout: 5m  # default
      idleTimeout: 1m  # default
    samples:
      rate: 0%  # default
      limit: 500  # default
      maxBytes: 16KiB  # default
      expiry: 7d  # default
      redact: []  # default
    ");
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let yaml = "data: {listen: '127.0.0.1:1', bodyLimit: 1MiB}\ncontrol: {listen: '127.0.0.1:2'}\n";
    let options = Options { data_listen: Some("127.0.0.1:3".to_owned()), ..Options::default() };
    let variables = [("SERIN_DATA_LISTEN", "127.0.0.1:4"), ("SERIN_CONTROL_LISTEN", "127.0.0.1:5")];
    let settings = load(yaml, &variables, options).unwrap();
    assert_eq!(settings.data.listen.port(), 3);
    assert_eq!(settings.control.listen.port(), 5);
    assert_eq!(settings.data.body_limit, 1 << 20);
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let yaml = "data:\n  listen: nowhere\n  bodyLimt: 1MiB\nretention: 5\nprovider:\n  baseUrl: ftp://x\n  apiKeyEnv: NOT_THERE\nlog: 3\ncontrol: {keys: [{name: ci, keyHash: short}]}\n";
    let variables =
        [("SERIN_DATA_MAX_PINS", "many"), ("SERIN_DATA_LISTN", "x"), ("SERIN_KEY", "of the client")];
    insta::assert_snapshot!(load(yaml, &variables, Options::default()).unwrap_err(), @r#"
    the settings have problems:
    serin.yaml line 8, column 6: log: expected a mapping, found a number
    serin.yaml line 2, column 11: data.listen: "nowhere" is no address such as 127.0.0.1:8980 or [::]:8980
    SERIN_DATA_MAX_PINS: data.maxPins: "many" is no whole number
    serin.yaml line 6, column 12: provider.baseUrl: "ftp://x" is no address of a provider: its scheme is neither http nor https
    serin.yaml line 7, column 14: provider.apiKeyEnv: the variable NOT_THERE is not set, or empty
      hint: set it, or remove the setting
    serin.yaml line 9, column 29: control.keys[0].keyHash: is no hash of a key
      hint: 64 hexadecimal digits: the BLAKE3 hash of the key, as `serin key create --offline` prints it
    serin.yaml line 4, column 12: retention: "5" has no unit such as s, m, h or d
    serin.yaml line 3, column 3: data.bodyLimt: unknown setting
      hint: did you mean data.bodyLimit?
    SERIN_DATA_LISTN: no setting has this variable
      hint: did you mean SERIN_DATA_LISTEN?
    "#);
}

#[test]
fn what_is_wrong_with_recording_is_told() {
    let yaml =
        "samples: {rate: 140%, limit: 0, maxBytes: 1MiB, expiry: 1y, redact: ['EMP', 'id=(', 'email=x']}\n";
    insta::assert_snapshot!(load(yaml, &[], Options::default()).unwrap_err(), @r#"
    the settings have problems:
    serin.yaml line 1, column 17: samples.rate: "140%" is no share of sessions such as 5%: weight 140 % is outside 0 to 100 %
    serin.yaml line 1, column 30: samples.limit: "0" is outside 1 to 100000
    serin.yaml line 1, column 43: samples.maxBytes: "1MiB" is more than 256KiB
    serin.yaml line 1, column 57: samples.expiry: "1y" is no duration such as 90s, 5m or 7d
    serin.yaml line 1, column 70: samples.redact: "EMP" has no name; write NAME=REGEX, such as employee=EMP-\d+
    serin.yaml line 1, column 77: samples.redact: "id=(" is no regular expression: unclosed group
    serin.yaml line 1, column 85: samples.redact: "email=x" has the name of a built-in pattern
    "#);
    let on = load(
        "samples: {rate: 0.5%, redact: ['id=EMP']}\n",
        &[("SERIN_SAMPLES_EXPIRY", "1h")],
        Options::default(),
    );
    let samples = on.unwrap().samples;
    assert_eq!((samples.rate.bp(), samples.expiry.to_string().as_str()), (50, "1h"));
    assert_eq!(samples.redactor.redact("EMP", 9).text, "[redacted:id]");
}

#[test]
fn beyond_loopback_neither_plane_is_open() {
    let yaml = "control: {listen: '0.0.0.0:8981', open: true}\ndata: {listen: '[::]:8980', keys: open}\n";
    insta::assert_snapshot!(load(yaml, &[], Options::default()).unwrap_err(), @r"
    the settings have problems:
    serin.yaml line 2, column 35: data.keys: [::]:8980 can be reached from other machines, which keys alone can keep out
      hint: leave it out, or listen on 127.0.0.1
    serin.yaml line 1, column 41: control.open: 0.0.0.0:8981 can be reached from other machines, which keys alone can keep out
      hint: leave it out, or listen on 127.0.0.1
    ");
    let beyond = "control: {listen: '0.0.0.0:8981'}\ndata: {listen: '[::]:8980'}\n";
    let settings = load(beyond, &[], Options::default()).unwrap();
    assert_eq!((settings.control.open, settings.data.keys), (false, DataKeys::Required));
    let loopback = load("data: {keys: required}", &[], Options::default()).unwrap();
    assert_eq!(loopback.data.keys, DataKeys::Required);
    let short = load(beyond, &[("SERIN_CONTROL_KEY", "short")], Options::default()).unwrap_err();
    assert!(short.contains("fewer than 16"), "{short}");
}

#[test]
fn a_key_of_the_settings_has_a_role_and_is_one_of_an_admin_without() {
    let hash = blake3::hash(b"a key of some length");
    let yaml = format!(
        "control:\n  keys:\n    - {{name: ci, keyHash: {hash}}}\n    - {{name: eve, keyHash: {hash}, role: viewer, packs: [support], readPrompts: true}}\n"
    );
    let keys = load(&yaml, &[], Options::default()).unwrap().control.keys;
    assert_eq!(keys[0].grant, Grant { read_prompts: false, ..Grant::ADMIN });
    assert_eq!((keys[1].grant.role, keys[1].grant.read_prompts), (Role::Viewer, true));
    assert_eq!(keys[1].grant.scope.to_string(), "support");
    let wrong = yaml.replace("viewer", "vewer").replace("[support]", "[Support, 3]");
    insta::assert_snapshot!(load(&wrong, &[], Options::default()).unwrap_err());
}

#[test]
fn secrets_are_never_shown() {
    let hash = blake3::hash(b"a key of some length");
    let yaml = format!("control: {{keys: [{{name: ci, keyHash: {hash}}}]}}\n");
    let variables =
        [("SERIN_PROVIDER_API_KEY", "sk-very-secret"), ("SERIN_CONTROL_KEY", "another key of some length")];
    let settings = load(&yaml, &variables, Options::default()).unwrap();
    let shown = format!("{settings:?}\n{}", settings.print());
    assert!(!shown.contains("sk-very-secret") && !shown.contains("another key of some length"), "{shown}");
    assert!(!settings.print().contains(&hash.to_string()), "{shown}");
    assert!(settings.print().contains("name: ci, role: admin"), "{shown}");
}

#[test]
fn the_example_file_is_in_force_as_it_stands() {
    let example = include_str!("../../../../examples/serin.yaml");
    let settings = load(example, &[("OPENAI_API_KEY", "sk-test")], Options::default()).unwrap();
    assert_eq!(settings.data.session_headers.len(), 1);
    assert!(settings.providers.hold_a_key());
}

#[test]
fn prices_are_read_by_model_and_mistakes_in_them_told() {
    let yaml = "prices:\n  gpt-5: {input: 1.25, cached: 0.125, output: 10}\n  plain: {input: 1, output: 2}\n";
    let prices = load(yaml, &[], Options::default()).unwrap().prices;
    let price = prices.of("gpt-5-2026-01-31").unwrap();
    assert_eq!((price.input, price.cached, price.output), (1.25, 0.125, 10.0));
    assert_eq!(prices.of("plain").unwrap().cached, 1.0);
    let told = load("prices:\n  a: {input: -1, output: 2}\n  b: {inputs: 1}\n", &[], Options::default())
        .unwrap_err();
    for expected in
        ["prices.a.input: is no price", "prices.b.inputs: unknown field", "prices.b: needs a price"]
    {
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn further_providers_have_names_and_the_timeouts_of_the_section_unless_they_say_otherwise() {
    let yaml = "
provider: {baseUrl: 'https://a.example/v1', apiKeyEnv: A_KEY, stallTimeout: 7s, maxRequests: 10}
providers:
  claude: {baseUrl: 'https://b.example', protocol: anthropic, http2: always, apiKeyEnv: B_KEY, maxRequests: 20}
  own: {baseUrl: 'http://10.0.0.1:8000/v1'}
defaultProvider: claude
";
    let keys = [("A_KEY", "key-of-a"), ("B_KEY", "key-of-b")];
    let settings = load(yaml, &keys, Options::default()).unwrap();
    let providers = &settings.providers;
    assert_eq!(providers.default.as_str(), "claude");
    let told: Vec<String> = providers
        .by_name
        .iter()
        .map(|(name, provider)| {
            let has_key = provider.key.is_some();
            let stall = provider.stall_timeout.as_secs();
            format!(
                "{name} {} {:?} {:?} {has_key} {} {stall}",
                provider.base_url, provider.speaks, provider.http2, provider.max_requests
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "claude https://b.example Anthropic Always true 20 7",
            "default https://a.example/v1 Both Auto true 10 7",
            "own http://10.0.0.1:8000/v1 Both Auto false 10 7"
        ]
    );
    let shown = format!("{settings:?}\n{}", settings.print());
    assert!(!shown.contains("key-of-"), "{shown}");
    assert!(
        shown.contains(
            "claude: {baseUrl: https://b.example, protocol: anthropic, http2: always, apiKeyEnv: B_KEY"
        ),
        "{shown}"
    );
}

#[test]
fn what_is_wrong_with_a_provider_is_told_with_its_place() {
    let yaml = "
providers:
  claude: {baseUrl: 'https://b.example', apiKeyEnv: B_KEY, protocl: anthropic}
  default: {baseUrl: 'https://c.example'}
  Own: {baseUrl: 'https://c.example'}
  bare: {maxRequests: 0, apiKey: sk-secret}
defaultProvider: cloude
";
    let told = load(yaml, &[], Options::default()).unwrap_err();
    insta::assert_snapshot!(told, @r#"
    the settings have problems:
    serin.yaml line 3, column 42: providers.claude.apiKeyEnv: "B_KEY" is a variable that is not set, or empty
    serin.yaml line 3, column 60: providers.claude.protocl: unknown field
      hint: known here: baseUrl, protocol, http2, caFile, apiKeyEnv, apiKeyFile, maxRequests, maxWaiting, connectRetries, connectTimeout, firstByteTimeout, stallTimeout, idleTimeout
    serin.yaml line 4, column 3: providers.default: the name is taken by the section `provider`
      hint: choose another name, or move its fields there
    serin.yaml line 5, column 3: providers.Own: provider name "Own" must start with a lower-case letter and hold only a-z, 0-9 and '-', 63 at most
    serin.yaml line 6, column 10: providers.bare.maxRequests: "0" is outside 1 to 1000000
    serin.yaml line 6, column 26: providers.bare.apiKey: a key does not belong into the settings
      hint: put it into a variable or a file, and name that with `apiKeyEnv` or `apiKeyFile`
    serin.yaml line 6, column 3: providers.bare: needs a baseUrl
      hint: write `baseUrl: https://HOST/v1`
    serin.yaml line 7, column 18: defaultProvider: "cloude" is none of the providers
      hint: did you mean claude?
    "#);
    assert!(!told.contains("sk-secret"));
}
