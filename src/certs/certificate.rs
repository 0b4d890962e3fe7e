//! What a certificate says, and whether the API server accepts it. Pure: the time is an argument.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Version;

/// A certificate that gwmon does not serve. Its parts are named as the keys of a Secret of type `kubernetes.io/tls` are.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// One of the texts is no PEM, or not of the kind that it should be.
    #[error("{part} cannot be read: {why}")]
    Unreadable {
        /// The text.
        part: &'static str,
        /// The parser's words.
        why: String,
    },
    /// No certificate in a text that should have one.
    #[error("{0} holds no certificate")]
    NoCertificate(&'static str),
    /// No certificate of an authority in a text that should have one.
    #[error("{0} holds no certificate of a CA that is valid now")]
    NoAuthority(&'static str),
    /// The private key of another certificate.
    #[error("tls.key is not the key of the first certificate in tls.crt")]
    OtherKey,
    /// A certificate for other names.
    #[error("the certificate is for {}, and not for {needed}, by which the API server calls gwmon", list(.names))]
    OtherName {
        /// The names that it is for.
        names: Vec<String>,
        /// The name that is needed.
        needed: String,
    },
    /// The time is not in its validity period.
    #[error("the certificate is valid from {} to {} only, which is not now by the API server's clock", date(*.begin), date(*.end))]
    OutOfDate {
        /// The first moment.
        begin: OffsetDateTime,
        /// The last moment.
        end: OffsetDateTime,
    },
    /// No authority of the bundle has issued it.
    #[error("{bundle} does not verify the certificate: {why}")]
    Untrusted {
        /// The bundle.
        bundle: &'static str,
        /// The verifier's words.
        why: String,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}

/// A time as Kubernetes writes it.
#[must_use]
pub fn date(time: OffsetDateTime) -> String {
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

/// The fields of a certificate that people and renewal look at.
#[derive(Debug)]
pub struct CertificateInfo {
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The DNS names and IP addresses that it is for.
    pub names: Vec<String>,
    /// The first moment of its validity.
    pub not_before: OffsetDateTime,
    /// The last moment of its validity.
    pub not_after: OffsetDateTime,
}

impl CertificateInfo {
    /// Reads the first certificate of a PEM text, and calls the text `part` in errors.
    ///
    /// # Errors
    /// [`Unusable::Unreadable`] and [`Unusable::NoCertificate`].
    pub fn of(part: &'static str, pem: &str) -> Result<Self, Unusable> {
        Self::all(part, pem)?.into_iter().next().ok_or(Unusable::NoCertificate(part))
    }

    /// Reads every certificate of a PEM text.
    ///
    /// # Errors
    /// [`Unusable::Unreadable`].
    pub fn all(part: &'static str, pem: &str) -> Result<Vec<Self>, Unusable> {
        chain(part, pem)?.iter().map(|der| Self::of_der(part, der)).collect()
    }

    fn of_der(part: &'static str, der: &[u8]) -> Result<Self, Unusable> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|error| unreadable(part, &error))?;
        let alternatives = certificate.subject_alternative_name().map_err(|error| unreadable(part, &error))?;
        let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            names: names
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
                    _ => None,
                })
                .collect(),
        })
    }

    /// Two thirds of its life (R5).
    #[must_use]
    pub fn renewal(&self) -> OffsetDateTime {
        self.not_before + (self.not_after - self.not_before) * 2 / 3
    }

    /// A certificate from the future was made by a clock that was ahead; clients reject it until `not_before`.
    pub(super) fn is_due(&self, now: OffsetDateTime) -> bool {
        now < self.not_before || now >= self.renewal()
    }

    fn check_dates(&self, now: OffsetDateTime) -> Result<(), Unusable> {
        let (begin, end) = (self.not_before, self.not_after);
        if (begin..=end).contains(&now) { Ok(()) } else { Err(Unusable::OutOfDate { begin, end }) }
    }

    pub(super) fn is_for(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn chain(part: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
    read.map_err(|error| unreadable(part, &fault(&error)))
}

fn unreadable(part: &'static str, why: &dyn std::fmt::Display) -> Unusable {
    Unusable::Unreadable { part, why: why.to_string() }
}

/// What is wrong with a PEM text. The parser's own words quote the line, which may be a private key.
pub(super) const fn fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "no PEM block of that kind",
        pem::Error::MissingSectionEnd { .. } => "a PEM block has no END line of its own",
        pem::Error::IllegalSectionStart { .. } => "a PEM block has no BEGIN line of its own",
        pem::Error::Base64Decode(_) => "a PEM block is not base64",
        _ => "not PEM",
    }
}

/// The process's cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// Checks that gwmon can serve a certificate to a client that calls it by this name.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(leaf: &str, key: &str, name: &str, now: OffsetDateTime) -> Result<(), Unusable> {
    check_leaf(leaf, name, now)?;
    let private =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unreadable("tls.key", &fault(&error)))?;
    let chain = chain("tls.crt", leaf)?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Unusable::OtherKey,
        other => unreadable("tls.key", &other),
    })?;
    Ok(())
}

/// The same without a look at the key.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_leaf(leaf: &str, name: &str, now: OffsetDateTime) -> Result<(), Unusable> {
    let info = CertificateInfo::of("tls.crt", leaf)?;
    let chain = chain("tls.crt", leaf)?;
    let end_entity = chain.first().ok_or(Unusable::NoCertificate("tls.crt"))?;
    let parsed = ParsedCertificate::try_from(end_entity).map_err(|error| unreadable("tls.crt", &error))?;
    let server = ServerName::try_from(name).map_err(|error| unreadable("the webhook's name", &error))?;
    if verify_server_name(&parsed, &server).is_err() {
        return Err(Unusable::OtherName { names: info.names, needed: name.to_owned() });
    }
    info.check_dates(now)
}

fn is_authority(der: &[u8], now: OffsetDateTime) -> bool {
    x509_parser::parse_x509_certificate(der).is_ok_and(|(_, certificate)| {
        let validity = certificate.validity();
        let is_marked = certificate.is_ca() || certificate.version() != X509Version::V3;
        is_marked && (validity.not_before.to_datetime()..=validity.not_after.to_datetime()).contains(&now)
    })
}

/// Checks that a client which trusts the authorities of this bundle, and no others, accepts a certificate.
///
/// # Errors
/// [`Unusable::Untrusted`], or a text that cannot be read.
pub fn verify(bundle: (&'static str, &str), leaf: &str, now: OffsetDateTime) -> Result<(), Unusable> {
    let (part, text) = bundle;
    let (authorities, chain) = (chain(part, text)?, chain("tls.crt", leaf)?);
    let (end_entity, intermediates) = chain.split_first().ok_or(Unusable::NoCertificate("tls.crt"))?;
    CertificateInfo::of("tls.crt", leaf)?.check_dates(now)?;
    // Go's verifier, and so the API server's, accepts a certificate that is in the bundle itself; webpki refuses one that is
    // marked as an authority, as those are that `openssl req -x509` makes.
    if authorities.contains(end_entity) {
        return Ok(());
    }
    let untrusted = |error: &dyn std::fmt::Display| Unusable::Untrusted { bundle: part, why: error.to_string() };
    let mut roots = RootCertStore::empty();
    // Go takes a certificate that is not marked as an authority, or has ended, for none; webpki does not look.
    for authority in authorities.into_iter().filter(|der| is_authority(der, now)) {
        roots.add(authority).map_err(|error| unreadable(part, &error))?;
    }
    if roots.is_empty() {
        return Err(Unusable::NoAuthority(part));
    }
    let parsed = ParsedCertificate::try_from(end_entity).map_err(|error| untrusted(&error))?;
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)
        .map_err(|error| untrusted(&error))
}

/// The certificates of a bundle, each as its own PEM text, and nothing else that stands there.
pub(super) fn certificates_of(bundle: &str) -> impl Iterator<Item = &str> {
    let certificate = |part: &'_ str| part.rfind("-----BEGIN CERTIFICATE-----");
    bundle.split_inclusive("-----END CERTIFICATE-----").filter_map(move |part| part.get(certificate(part)?..))
}

/// The certificates of a bundle that have not ended.
pub(super) fn still_valid(bundle: &str, now: OffsetDateTime) -> impl Iterator<Item = &str> {
    certificates_of(bundle).filter(move |pem| CertificateInfo::of("ca.crt", pem).is_ok_and(|info| info.not_after > now))
}

/// The text of a bundle.
pub(super) fn joined<'a>(certificates: impl Iterator<Item = &'a str>) -> String {
    certificates.flat_map(|pem| [pem, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::issue::{Authority, Certificates};
    use super::*;
    use time::Duration;

    const NAME: &str = "gwmon.gwmon.svc";

    fn made(name: &str) -> (Certificates, OffsetDateTime) {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        (Certificates::new(&[name.to_owned()], now).unwrap(), now)
    }

    #[test]
    fn each_fault_of_a_pair_is_named() {
        let ((one, now), (other, _)) = (made(NAME), made("other.svc"));
        let fault = |leaf: &str, key: &str, now| check(leaf, key, NAME, now).unwrap_err().to_string();
        assert!(check(&one.leaf, &one.leaf_key, NAME, now).is_ok());
        assert_eq!(fault("", &one.leaf_key, now), "tls.crt holds no certificate");
        assert_eq!(fault(&one.leaf_key, &one.leaf, now), "tls.crt holds no certificate");
        assert_eq!(fault(&one.leaf, "", now), "tls.key cannot be read: no PEM block of that kind");
        // As a JSON value of a Secret is sometimes pasted.
        for line in [one.leaf_key.replace('\n', ""), one.leaf_key.replace('\n', "\\n"), format!("x{}", one.leaf_key)] {
            let said = fault(&one.leaf, &line, now);
            assert!(said.starts_with("tls.key cannot be read: ") && said.len() < 80, "{said}");
        }
        assert!(fault(&one.leaf.replace("MII", "MIJ"), &one.leaf_key, now).starts_with("tls.crt cannot be read: "));
        assert_eq!(
            fault(&one.leaf, &other.leaf_key, now),
            "tls.key is not the key of the first certificate in tls.crt"
        );
        assert_eq!(
            fault(&other.leaf, &other.leaf_key, now),
            "the certificate is for other.svc, and not for gwmon.gwmon.svc, by which the API server calls gwmon"
        );
        for days in [-1, 91] {
            let said = fault(&one.leaf, &one.leaf_key, now + Duration::days(days));
            assert!(
                said.starts_with("the certificate is valid from 2024-10-03T23:55:00Z to 2025-01-02T00:00:00Z"),
                "{said}"
            );
        }
    }

    #[test]
    fn only_the_authority_that_issued_a_leaf_verifies_it() {
        let ((one, now), (other, _)) = (made(NAME), made(NAME));
        let said = |bundle: &str| verify(("caBundle", bundle), &one.leaf, now).map_err(|error| error.to_string());
        let both = format!("{}\n{}", other.authorities, one.authorities);
        assert_eq!((said(&one.authorities), said(&both)), (Ok(()), Ok(())));
        assert!(said(&other.authorities).unwrap_err().starts_with("caBundle does not verify the certificate: "));
        assert_eq!(said("").unwrap_err(), "caBundle holds no certificate of a CA that is valid now");
        assert_eq!(said(&one.leaf), Ok(()), "Go accepts a certificate that is trusted itself");
        let ended = now + Duration::days(91);
        for bundle in [&one.leaf, &one.authorities] {
            assert!(matches!(verify(("caBundle", bundle), &one.leaf, ended), Err(Unusable::OutOfDate { .. })));
        }
        let short = Authority::new(now, Duration::days(10)).unwrap();
        let other = Certificates { authorities: short.certificates, ..other };
        let later = verify(("caBundle", &other.authorities), &one.leaf, now + Duration::days(11)).unwrap_err();
        assert!(matches!(later, Unusable::NoAuthority(_)), "{later}");
    }

    #[test]
    fn what_has_ended_leaves_the_bundle() {
        let ((one, now), (other, _)) = (made(NAME), made(NAME));
        let both = format!("# a comment\n{}\n{}", one.authorities, other.authorities);
        let kept = |days| still_valid(&both, now + Duration::days(days)).count();
        assert_eq!((kept(0), kept(366)), (2, 0));
        assert!(joined(still_valid(&both, now)).starts_with("-----BEGIN"));
        let with_key = format!("{}{}", one.authority_key, one.authorities);
        assert_eq!(certificates_of(&with_key).collect::<Vec<_>>(), [one.authorities.trim()], "a key stays where it is");
    }
}
