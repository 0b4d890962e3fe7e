//! The open connections of one port: how many there may be, how long each may wait, and which one has to go when all places
//! are taken.
//!
//! The API server opens few connections and uses them. Whoever opens many and says nothing on them gives way to whoever comes,
//! so that a new connection, of the API server's or of the kubelet's, always finds a place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// From a connection's beginning to the end of its first request's head. Nobody who means it takes longer.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// From the beginning of one request to that of the next. Longer than the API server keeps a connection that it does not use
/// (90 s): it does not repeat a review that it sends just when the connection is closed.
const NEXT_REQUEST: Duration = Duration::from_mins(2);

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
    /// Its place is needed.
    given_up: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// When the connection, or its latest request, began.
    since: Instant,
    /// Whether a request has ever come.
    has_asked: bool,
    /// Whether a request is being answered.
    is_asking: bool,
}

/// An open connection's place; free again with the end of this.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Connections>,
    number: u64,
    connection: Arc<Connection>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), most: most.max(1), held: AtomicUsize::new(0) })
    }

    /// Gives a new connection its place, if need be that of another one.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, number: u64) -> Place {
        let progress = Progress { since: Instant::now(), has_asked: false, is_asking: false };
        let connection = Arc::new(Connection { peer, progress: Mutex::new(progress), given_up: Notify::new() });
        let mut open = lock(&self.open);
        if open.len() >= self.most
            && let Some(least) = least_needed(&open)
            && let Some(gone) = open.remove(&least)
        {
            gone.given_up.notify_one();
        }
        open.insert(number, Arc::clone(&connection));
        self.held.fetch_add(1, Ordering::Relaxed);
        Place { of: Arc::clone(self), number, connection }
    }

    /// Lets connections that have been given up end, before there are many more than there may be.
    pub(super) async fn settle(&self) {
        while self.held.load(Ordering::Relaxed) > self.most + SLACK {
            tokio::task::yield_now().await;
        }
    }
}

/// One of the address that has the most, so that no pod can take the API server's places; of these not one that is being
/// answered, if there is another; of those that have never asked for anything and those that have, one of the larger crowd, so
/// that neither can take all; and of these the one that has waited longest.
fn least_needed(open: &HashMap<u64, Arc<Connection>>) -> Option<u64> {
    let mut of_peer: HashMap<IpAddr, usize> = HashMap::new();
    let (mut asked, mut silent) = (0, 0);
    let seen: Vec<_> = open
        .iter()
        .map(|(number, connection)| {
            let progress = *lock(&connection.progress);
            *of_peer.entry(connection.peer).or_default() += 1;
            *if progress.has_asked { &mut asked } else { &mut silent } += 1;
            (*number, connection.peer, progress)
        })
        .collect();
    let rank = |(_, peer, progress): &&(u64, IpAddr, Progress)| {
        let is_of_crowd = progress.has_asked == (asked > silent);
        (of_peer.get(peer).copied(), !progress.is_asking, is_of_crowd, progress.since.elapsed())
    };
    seen.iter().max_by_key(rank).map(|(number, ..)| *number)
}

impl Place {
    /// Done when the connection has to end: it has waited too long, or its place is needed.
    pub(super) async fn ends(&self) -> &'static str {
        loop {
            let Progress { since, has_asked, .. } = *lock(&self.connection.progress);
            let end = since + if has_asked { NEXT_REQUEST } else { FIRST_REQUEST };
            if end <= Instant::now() {
                return "no request came in time";
            }
            tokio::select! {
                () = tokio::time::sleep_until(end) => {}
                () = self.connection.given_up.notified() => return "its place was needed",
            }
        }
    }

    /// A request has come.
    pub(super) fn asks(&self) {
        *lock(&self.connection.progress) = Progress { since: Instant::now(), has_asked: true, is_asking: true };
    }

    /// It is answered.
    pub(super) fn is_answered(&self) {
        lock(&self.connection.progress).is_asking = false;
    }
}

impl Drop for Place {
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

    /// Whether a connection has been told to go.
    async fn is_told(place: &Place) -> bool {
        tokio::time::timeout(Duration::from_millis(1), place.ends()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_nothing_ends_soon_and_one_that_has_asked_waits_longer_than_the_api_server() {
        let connections = Connections::new(9);
        let place = connections.admit(peer(1), 0);
        let began = Instant::now();
        place.ends().await;
        assert_eq!(began.elapsed().as_secs(), 10);
        place.asks();
        let began = Instant::now();
        place.ends().await;
        assert!(began.elapsed() > Duration::from_secs(90));
        drop(place);
        assert!(lock(&connections.open).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_the_most_and_says_nothing_gives_way() {
        let connections = Connections::new(5);
        let good = connections.admit(peer(1), 0);
        good.asks();
        good.is_answered();
        let mut held = Vec::new();
        for number in 1..5 {
            tokio::time::advance(Duration::from_millis(1)).await;
            held.push(connections.admit(peer(2), number));
        }
        let fresh = connections.admit(peer(3), 5);
        let told = [is_told(&held[0]).await, is_told(&held[3]).await, is_told(&good).await, is_told(&fresh).await];
        assert_eq!(told, [true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_the_silent_nor_those_that_have_asked_can_take_all_places() {
        let connections = Connections::new(3);
        let idle: Vec<_> = (0..3)
            .map(|number| {
                let place = connections.admit(peer(2), number);
                place.asks();
                place.is_answered();
                place
            })
            .collect();
        let first = connections.admit(peer(2), 3);
        tokio::time::advance(Duration::from_millis(1)).await;
        let second = connections.admit(peer(2), 4);
        assert!(!is_told(&first).await && !is_told(&second).await);
        let mut gone = 0;
        for place in &idle {
            gone += usize::from(is_told(place).await);
        }
        assert_eq!(gone, 2);
        // Whoever is being answered goes last.
        let busy = connections.admit(peer(2), 5);
        busy.asks();
        let mut others = Vec::new();
        for number in 6..12 {
            tokio::time::advance(Duration::from_millis(1)).await;
            others.push(connections.admit(peer(2), number));
        }
        assert!(!is_told(&busy).await && !is_told(&others[5]).await);
    }
}
