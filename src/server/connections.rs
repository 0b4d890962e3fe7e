//! The open connections of one port: how many there may be, how long each may wait, and which one has to go when all places
//! are taken.
//!
//! The API server opens few connections and uses them. A peer with many idle connections loses one to a new connection, so that
//! one of the API server's or of the kubelet's is always accepted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lock::lock;

/// For the TLS handshake, and from the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// From the end of the handshake, or the beginning of a request, to the first byte of the next. Longer than the API server
/// keeps a connection that it does not use (90 s): it does not repeat a review that it sends just when the connection is closed.
const IDLE: Duration = Duration::from_mins(2);
/// The interval at which idle connections are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The number of connections up to which addresses count alike.
const FEW: usize = 16;

/// Connections that have been given up and have not ended yet.
const SLACK: usize = 16;

/// The connections that are open.
#[derive(Debug)]
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    most: usize,
    /// With those that have been given up and still hold their file descriptor.
    held: AtomicUsize,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    peer: IpAddr,
    progress: Mutex<Progress>,
    /// Its slot is needed.
    given_up: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The end of the handshake, or the start of the latest request.
    since: Instant,
    /// The start of the handshake, or of the head that is being read.
    head: Option<Instant>,
    /// True once a request has come.
    has_sent_request: bool,
    /// True while a request is being answered.
    is_serving: bool,
}

/// An open connection's slot; dropping it frees the slot.
#[derive(Debug)]
pub(super) struct Slot {
    of: Arc<Connections>,
    number: u64,
    connection: Arc<Connection>,
}

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), most: most.max(1), held: AtomicUsize::new(0) })
    }

    /// Gives a new connection a slot, if need be that of another one.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, number: u64) -> Slot {
        let now = Instant::now();
        let progress = Progress { since: now, head: Some(now), has_sent_request: false, is_serving: false };
        let connection =
            Arc::new(Connection { peer: network_of(peer), progress: Mutex::new(progress), given_up: Notify::new() });
        let mut open = lock(&self.open);
        if open.len() >= self.most
            && let Some(least) = least_needed(&open)
            && let Some(gone) = open.remove(&least)
        {
            gone.given_up.notify_one();
        }
        open.insert(number, Arc::clone(&connection));
        self.held.fetch_add(1, Ordering::Relaxed);
        Slot { of: Arc::clone(self), number, connection }
    }

    /// Waits while too many evicted connections are still open.
    pub(super) async fn settle(&self) {
        while self.held.load(Ordering::Relaxed) > self.most + SLACK {
            tokio::task::yield_now().await;
        }
    }
}

/// Identifies a peer: by its IPv4 address, or by its IPv6 /64, since one host has many addresses.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        other => other.to_canonical(),
    }
}

/// Which connection has to go. In this order:
///
/// - of the address that has the most, so that no pod can take the API server's places;
/// - not one that is being answered;
/// - of those that have never sent a request and those that have, one of the larger group, so that neither takes all places;
/// - the one that has waited longest.
fn least_needed(open: &HashMap<u64, Arc<Connection>>) -> Option<u64> {
    let mut of_peer: HashMap<IpAddr, usize> = HashMap::new();
    let (mut asked, mut silent) = (0, 0);
    let seen: Vec<_> = open
        .iter()
        .map(|(number, connection)| {
            let progress = *lock(&connection.progress);
            *of_peer.entry(connection.peer).or_default() += 1;
            *if progress.has_sent_request { &mut asked } else { &mut silent } += 1;
            (*number, connection.peer, progress)
        })
        .collect();
    let rank = |(_, peer, progress): &&(u64, IpAddr, Progress)| {
        let is_of_crowd = progress.has_sent_request == (asked > silent);
        (of_peer.get(peer).map(|count| *count.max(&FEW)), !progress.is_serving, is_of_crowd, progress.since.elapsed())
    };
    seen.iter().max_by_key(rank).map(|(number, ..)| *number)
}

impl Slot {
    /// Done when the connection has to end: it has waited too long, or its slot is needed.
    pub(super) async fn ends(&self) -> &'static str {
        loop {
            let Progress { since, head, .. } = *lock(&self.connection.progress);
            let (end, now) = (head.map_or(since + IDLE, |began| began + HEAD), Instant::now());
            if end <= now {
                return "no request came in time";
            }
            tokio::select! {
                () = tokio::time::sleep_until(end.min(now + CHECK_INTERVAL)) => {}
                () = self.connection.given_up.notified() => return "its slot was needed",
            }
        }
    }

    /// The handshake is done.
    pub(super) fn opened(&self) {
        let mut progress = lock(&self.connection.progress);
        (progress.since, progress.head) = (Instant::now(), None);
    }

    /// Something has come: the beginning of a request, if none is being answered.
    pub(super) fn received_data(&self) {
        let mut progress = lock(&self.connection.progress);
        if !progress.is_serving {
            progress.head.get_or_insert_with(Instant::now);
        }
    }

    /// A request's head is complete.
    pub(super) fn request_started(&self) {
        let asking = Progress { since: Instant::now(), head: None, has_sent_request: true, is_serving: true };
        *lock(&self.connection.progress) = asking;
    }

    /// It is answered.
    pub(super) fn request_answered(&self) {
        lock(&self.connection.progress).is_serving = false;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.of.open).remove(&self.number);
        self.of.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Returns true if a connection is told to close.
    async fn is_told(slot: &Slot) -> bool {
        tokio::time::timeout(Duration::from_millis(1), slot.ends()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_and_a_head_end_soon_and_a_silent_connection_after_the_api_servers() {
        let connections = Connections::new(9);
        let lasts = async |slot: &Slot| {
            let began = Instant::now();
            slot.ends().await;
            began.elapsed().as_secs()
        };
        let slot = connections.admit(peer(1), 0);
        assert_eq!(lasts(&slot).await, 10, "no handshake");
        slot.opened();
        assert_eq!(lasts(&slot).await, 120, "the API server keeps a spare one for 90 s");
        slot.received_data();
        assert_eq!(lasts(&slot).await, 10, "half a head");
        slot.request_started();
        slot.received_data();
        slot.request_answered();
        assert_eq!(lasts(&slot).await, 120);
        drop(slot);
        assert!(lock(&connections.open).is_empty());
    }

    #[test]
    fn one_host_is_one_peer() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_the_most_and_says_nothing_gives_way() {
        let connections = Connections::new(21);
        let good = connections.admit(peer(1), 0);
        good.request_started();
        good.request_answered();
        let mut held = Vec::new();
        for number in 1..21 {
            tokio::time::advance(Duration::from_millis(1)).await;
            held.push(connections.admit(peer(2), number));
        }
        let fresh = connections.admit(peer(3), 21);
        let told = [is_told(&held[0]).await, is_told(&held[19]).await, is_told(&good).await, is_told(&fresh).await];
        assert_eq!(told, [true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_the_silent_nor_those_that_have_asked_can_take_all_places() {
        let connections = Connections::new(3);
        let idle: Vec<_> = (0..3)
            .map(|number| {
                let slot = connections.admit(peer(2), number);
                slot.request_started();
                slot.request_answered();
                slot
            })
            .collect();
        let first = connections.admit(peer(2), 3);
        tokio::time::advance(Duration::from_millis(1)).await;
        let second = connections.admit(peer(2), 4);
        assert!(!is_told(&first).await && !is_told(&second).await);
        let mut gone = 0;
        for slot in &idle {
            gone += usize::from(is_told(slot).await);
        }
        assert_eq!(gone, 2);
        // Whoever is being answered goes last.
        let busy = connections.admit(peer(2), 5);
        busy.request_started();
        let mut others = Vec::new();
        for number in 6..12 {
            tokio::time::advance(Duration::from_millis(1)).await;
            others.push(connections.admit(peer(2), number));
        }
        assert!(!is_told(&busy).await && !is_told(&others[5]).await);
    }
}
