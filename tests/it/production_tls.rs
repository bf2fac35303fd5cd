//! Whom production's handshake lets in, asked with `openssl` and `curl`: every
//! refusal is told to the client, logged once with its reason, and counted.

use serde_json::Value;

use crate::support::outsider::{Production, TRIED_SCOPE, Validity, series, tried_name};
use crate::support::{Ended, KmsProcess};

const REFUSED: &str = "TLS handshake refused";

/// openssl's test client with these arguments and this certificate. It asks over
/// HTTP/1.1 and stays until the service ends the connection.
fn s_client(
    production: &Production,
    kms: &KmsProcess,
    certificate: Option<&str>,
    arguments: &[&str],
) -> Ended {
    let address = kms.api().to_string();
    let mut all = vec!["s_client", "-connect", &address, "-CAfile", "ca.pem"];
    all.extend(["-verify_return_error", "-ign_eof"]);
    let files = certificate.map(|name| (format!("{name}.pem"), format!("{name}.key")));
    if let Some((pem, key)) = &files {
        all.extend(["-cert", pem, "-key", key]);
    }
    all.extend(arguments);
    let request = b"GET /health HTTP/1.1\r\nHost: kms\r\nConnection: close\r\n\r\n";
    production.openssl(&all, request)
}

#[test]
fn openssl_speaks_tls_1_3_and_agrees_on_either_http() {
    let production = Production::lay_out();
    let kms = production.start();
    let certificate = Some("client-M21");
    let arguments = ["-tls1_3", "-alpn", "http/1.1"];
    let said = s_client(&production, &kms, certificate, &arguments);
    for wanted in [
        "TLSv1.3",
        "ALPN protocol: http/1.1",
        "Verify return code: 0 (ok)",
        "HTTP/1.1 200",
    ] {
        assert!(said.stdout.contains(wanted), "{wanted}: {said:?}");
    }
    // What is no HTTP/2 ends the connection; what was agreed on was said before.
    let arguments = ["-tls1_3", "-alpn", "h2,http/1.1"];
    let said = s_client(&production, &kms, certificate, &arguments);
    assert!(said.stdout.contains("ALPN protocol: h2"), "{said:?}");
    // A client that names no protocol speaks HTTP/1.1.
    let said = s_client(&production, &kms, certificate, &["-tls1_3"]);
    assert!(said.stdout.contains("HTTP/1.1 200"), "{said:?}");
    let output = kms.stop();
    assert!(!output.contains(REFUSED), "{output}");
}

/// The certificates of those who are turned away, made by openssl.
fn make_strangers(production: &Production) {
    production.make_authority("other");
    let (name, client) = (tried_name("M21"), "clientAuth");
    production.issue("of-another", "other", &name, client, Validity::NOW);
    production.issue("ended", "ca", &name, client, Validity::ENDED);
    production.issue(
        "nameless",
        "ca",
        "DNS:m21.example.com",
        client,
        Validity::NOW,
    );
    let two = format!("{name},{}", tried_name("M27"));
    production.issue("of-two-names", "ca", &two, client, Validity::NOW);
    production.issue(
        "misnamed",
        "ca",
        "URI:spiffe://dev.zeroui.local/M21",
        client,
        Validity::NOW,
    );
    production.issue("server-like", "ca", &name, "serverAuth", Validity::NOW);
}

#[test]
fn every_refused_handshake_is_told_to_the_client_logged_once_and_counted() {
    let production = Production::lay_out();
    make_strangers(&production);
    let mut kms = production.start();
    // The numbers of the alerts: RFC 8446 §6.2. With curl they are ten, which is as
    // many as the log takes in one second.
    let refusals: [(Option<&str>, &[&str], u8, &str); 9] = [
        (Some("client-M21"), &["-tls1_2"], 70, "protocol_version"),
        (
            Some("client-M21"),
            &["-tls1_3", "-alpn", "spdy/3"],
            120,
            "application_protocol",
        ),
        (None, &["-tls1_3"], 116, "no_certificate"),
        (Some("of-another"), &[], 48, "unknown_authority"),
        (Some("ended"), &[], 45, "expired"),
        (Some("nameless"), &[], 49, "no_name"),
        (Some("of-two-names"), &[], 49, "several_names"),
        (Some("misnamed"), &[], 49, "bad_name"),
        (Some("server-like"), &[], 43, "wrong_usage"),
    ];
    for (certificate, arguments, alert, reason) in refusals {
        let said = s_client(&production, &kms, certificate, arguments);
        assert!(!said.stdout.contains("HTTP/1.1"), "{reason}: {said:?}");
        let alert = format!("SSL alert number {alert}\n");
        assert!(said.stderr.contains(&alert), "{reason}: {said:?}");
        kms.wait_for_line(&[REFUSED, &format!("\"reason\":\"{reason}\"")]);
    }
    // curl gets no answer either.
    let url = format!("https://{}/kms/v1/keys?{TRIED_SCOPE}", kms.api());
    let said = production.curl_nameless(&url);
    assert_eq!((said.code, said.status), (Some(56), 0), "{said:?}");
    assert!(said.stderr.contains("certificate required"), "{said:?}");

    let operations = kms.operations().expect("an operations listener");
    let url = format!("http://{operations}/kms/v1/metrics");
    let metrics = production.curl_nameless(&url).text;
    let output = kms.stop();
    let lines: Vec<Value> = output
        .lines()
        .filter(|line| line.contains(REFUSED))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), refusals.len() + 1, "{output}");
    for (.., reason) in refusals {
        let logged = lines.iter().filter(|line| line["reason"] == reason);
        let (wanted, wanted_value) = match reason {
            "no_certificate" => (2, 2.0),
            _ => (1, 1.0),
        };
        assert_eq!(logged.count(), wanted, "{reason}: {output}");
        let counted = format!("kms_tls_handshakes_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(series(&metrics, &counted), wanted_value, "{counted}");
    }
    for line in lines {
        assert_eq!(line["left_out"], 0, "{line}");
        assert!(
            line["peer"]
                .as_str()
                .is_some_and(|peer| peer.starts_with("127.0.0.1:"))
        );
    }
}
