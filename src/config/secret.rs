//! Masking what must not be seen when the configuration is printed.
//!
//! It knows where secrets hide in a text, and not what they open.

/// What stands where a secret would.
pub(super) const MASK: &str = "********";

/// Parameters of an address whose values are no secret.
const HARMLESS_PARAMETERS: [&str; 4] = [
    "sslmode",
    "sslrootcert",
    "application_name",
    "connect_timeout",
];

/// An address with what may be a secret in it masked: the password before the
/// host, and every parameter that isn't known to be harmless. A badly formed
/// address loses more than it has to rather than less.
pub(super) fn mask_address(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    // The last `@`: an unescaped one belongs to the password before it.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{}@", mask_after_colon(user)), rest.to_owned()),
        None => (String::new(), mask_odd_port(rest)),
    };
    let Some((place, parameters)) = rest.split_once('?') else {
        return format!("{scheme}://{user}{rest}");
    };
    let parameters: Vec<String> = parameters.split('&').map(mask_parameter).collect();
    format!("{scheme}://{user}{place}?{}", parameters.join("&"))
}

fn mask_after_colon(user: &str) -> String {
    match user.split_once(':') {
        Some((name, _)) => format!("{name}:{MASK}"),
        None => user.to_owned(),
    }
}

/// `user:password` whose `@host` was forgotten looks like a host and its port.
fn mask_odd_port(rest: &str) -> String {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.split_once(':') {
        Some((host, port)) if !port.chars().all(|c| c.is_ascii_digit()) => {
            format!("{host}:{MASK}{tail}")
        }
        _ => rest.to_owned(),
    }
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if HARMLESS_PARAMETERS.contains(&name) => parameter.to_owned(),
        Some((name, _)) => format!("{name}={MASK}"),
        None => MASK.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_place_and_loses_its_password() {
        assert_eq!(
            mask_address("postgres://kms:hunter2@db:5432/kms?sslmode=require"),
            "postgres://kms:********@db:5432/kms?sslmode=require"
        );
        assert_eq!(
            mask_address("postgres://db:5432/kms"),
            "postgres://db:5432/kms"
        );
    }

    #[test]
    fn no_way_to_write_a_password_gets_past_the_mask() {
        for address in [
            "postgres://kms:hunter2@db/kms",
            "postgres://kms:a@hunter2@db/kms",
            "postgres://kms:a/hunter2?b@db/kms",
            "postgres://kms:hunter2",
            "postgres://kms:hunter2/kms",
            "postgresql:///kms?host=db&password=hunter2",
            "postgresql:///kms?p%61ssword=hunter2",
            "postgresql:///kms?password=a&hunter2",
            "https://m21:hunter2@iam/jwks.json",
        ] {
            assert!(!mask_address(address).contains("hunter2"), "{address}");
        }
    }
}
