//! Certificates: an authority that lives long, a leaf that it signs, and when to make either anew. No files
//! and no clock: the time is an argument.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

/// The authority's life.
const AUTHORITY_LIFE: Duration = Duration::days(365);
/// The leaf's life; never past the authority's.
const LEAF_LIFE: Duration = Duration::days(90);
/// Certificates begin this much before they are made, for clocks that are behind.
const BACKDATE: Duration = Duration::minutes(5);

/// An authority and a leaf, with their keys, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The authorities to trust: the current one first, then up to two former ones until they expire.
    pub authorities: String,
    /// The current authority's key.
    pub authority_key: String,
    /// The leaf.
    pub leaf: String,
    /// The leaf's key.
    pub leaf_key: String,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

/// Certificates that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From rcgen.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Not PEM, or not X.509.
    #[error("cannot read a certificate: {0}")]
    Read(String),
}

impl Certificates {
    /// A new authority and a leaf for these names (DNS names and IP addresses).
    ///
    /// # Errors
    /// A name that is not valid.
    pub fn new(names: &[String], now: OffsetDateTime) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        // Two authorities must not share a name: a verifier would try the wrong one and give up.
        params.distinguished_name.push(DnType::CommonName, format!("gwmon CA {}", now.unix_timestamp()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = (now - BACKDATE, now + AUTHORITY_LIFE);
        let key = KeyPair::generate()?;
        let authority_key = key.serialize_pem();
        let authority = CertifiedIssuer::self_signed(params, key)?;
        let (leaf, leaf_key) = issue(&authority, names, now, now + AUTHORITY_LIFE)?;
        Ok(Self { authorities: authority.pem(), authority_key, leaf, leaf_key })
    }

    /// The successor that is due: after two thirds of the validity (R5), for other names, or if a part cannot be
    /// read. The previous authority stays in the bundle while it is valid, so that clients trust replicas which still
    /// serve its leaf (R6).
    ///
    /// # Errors
    /// A name that is not valid.
    pub fn renewed(&self, names: &[String], now: OffsetDateTime) -> Result<Option<Self>, Error> {
        let Ok(authority) = Validity::of(&self.authorities) else { return Self::new(names, now).map(Some) };
        let Ok(issuer) =
            KeyPair::from_pem(&self.authority_key).and_then(|key| Issuer::from_ca_cert_pem(&self.authorities, key))
        else {
            return Self::new(names, now).map(Some);
        };
        if authority.due(now) {
            let mut renewed = Self::new(names, now)?;
            renewed.authorities.push_str(&still_valid(&self.authorities, now)?);
            return Ok(Some(renewed));
        }
        if Validity::of(&self.leaf).is_ok_and(|leaf| !leaf.due(now) && leaf.is_for(names)) {
            return Ok(None);
        }
        let (leaf, leaf_key) = issue(&issuer, names, now, authority.not_after)?;
        Ok(Some(Self { leaf, leaf_key, ..self.clone() }))
    }
}

fn issue(
    issuer: &Issuer<'_, KeyPair>,
    names: &[String],
    now: OffsetDateTime,
    authority_ends: OffsetDateTime,
) -> Result<(String, String), Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "gwmon");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (now - BACKDATE, authority_ends.min(now + LEAF_LIFE));
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

/// The newest certificates of a bundle that have not expired.
fn still_valid(bundle: &str, now: OffsetDateTime) -> Result<String, Error> {
    const MOST: usize = 2;
    let mut kept = String::new();
    for certificate in bundle.split_inclusive("-----END CERTIFICATE-----").filter(|part| part.contains("BEGIN")) {
        if kept.matches("BEGIN").count() < MOST && Validity::of(certificate)?.not_after > now {
            kept.push_str(certificate.trim_start());
            kept.push('\n');
        }
    }
    Ok(kept)
}

/// A certificate's validity period and names.
#[derive(Debug)]
pub struct Validity {
    not_before: OffsetDateTime,
    /// The end.
    pub not_after: OffsetDateTime,
    names: Vec<String>,
}

impl Validity {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn of(pem: &str) -> Result<Self, Error> {
        use x509_parser::extensions::GeneralName;
        let read = |error: &dyn std::fmt::Display| Error::Read(error.to_string());
        let pem =
            Pem::iter_from_buffer(pem.as_bytes()).next().ok_or_else(|| read(&"no PEM block"))?.map_err(|e| read(&e))?;
        let certificate = pem.parse_x509().map_err(|e| read(&e))?;
        let alternatives = certificate.subject_alternative_name().map_err(|e| read(&e))?;
        let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        Ok(Self {
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            names: names
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    GeneralName::IPAddress([a, b, c, d]) => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
                    _ => None,
                })
                .collect(),
        })
    }

    /// A certificate from the future was made by a clock that was ahead; clients reject it until `not_before`.
    fn due(&self, now: OffsetDateTime) -> bool {
        now < self.not_before || now >= self.not_before + (self.not_after - self.not_before) * 2 / 3
    }

    fn is_for(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["gwmon.gwmon.svc".to_owned(), "127.0.0.1".to_owned()]
    }

    fn certificates(pem: &str) -> usize {
        pem.matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn nothing_is_renewed_before_two_thirds_of_a_life() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let made = Certificates::new(&names(), start).unwrap();
        assert_eq!(made.renewed(&names(), start + Duration::days(59)).unwrap(), None);
        let renewed = made.renewed(&names(), start + Duration::days(61)).unwrap().unwrap();
        assert_eq!(renewed.authorities, made.authorities, "the authority outlives the leaf");
        assert_ne!(renewed.leaf, made.leaf);
    }

    #[test]
    fn an_old_authority_stays_in_the_bundle_until_it_ends() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let first = Certificates::new(&names(), start).unwrap();
        let second = first.renewed(&names(), start + Duration::days(244)).unwrap().unwrap();
        assert!(second.authorities.ends_with(&first.authorities) && certificates(&second.authorities) == 2);
        let third = second.renewed(&names(), start + Duration::days(488)).unwrap().unwrap();
        assert_eq!(certificates(&third.authorities), 2, "the first has ended");
        assert!(!third.authorities.contains(first.authorities.trim()));
    }

    #[test]
    fn a_leaf_never_outlives_its_authority_and_covers_other_names_at_once() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let made = Certificates::new(&names(), start).unwrap();
        let late = made.renewed(&names(), start + Duration::days(240)).unwrap().unwrap();
        assert!(Validity::of(&late.leaf).unwrap().not_after <= Validity::of(&late.authorities).unwrap().not_after);
        let others = vec!["other.svc".to_owned()];
        assert!(Validity::of(&made.renewed(&others, start).unwrap().unwrap().leaf).unwrap().is_for(&others));
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_made_is_made_anew() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let mut made = Certificates::new(&names(), now + Duration::days(200)).unwrap();
        for _ in 0..3 {
            let renewed = made.renewed(&names(), now).unwrap().unwrap();
            assert_eq!(renewed.renewed(&names(), now).unwrap(), None, "and then it is right");
            assert!(certificates(&renewed.authorities) <= 3);
            // The clock jumps ahead and back again.
            made = renewed.renewed(&names(), now + Duration::days(300)).unwrap().unwrap();
        }
    }

    #[test]
    fn what_cannot_be_read_is_made_anew() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let broken = Certificates {
            authorities: "x".into(),
            authority_key: "y".into(),
            leaf: "z".into(),
            leaf_key: String::new(),
        };
        assert!(broken.renewed(&names(), now).unwrap().is_some());
    }
}
