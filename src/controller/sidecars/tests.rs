use super::*;
use crate::reason::Reason;

fn owner() -> OwnerReference {
    OwnerReference {
        kind: "ReplicaSet".to_owned(),
        name: "edge-6d4b".to_owned(),
        uid: "u".to_owned(),
        ..<_>::default()
    }
}

fn place(name: &str) -> NamespacedName {
    ("edge".to_owned(), name.to_owned())
}

fn pod(name: &str, created: i64, failure: Option<Reason>, trial: Option<i64>) -> Observed {
    let failure = failure.map(|reason| Finding::new(reason, ""));
    let key = ("edge".to_owned(), "edge-gwmon".to_owned());
    let observed = ObservedPod { owner: owner(), key, created, runs: failure.is_none(), failure, trial };
    Observed::Pod(place(name), Box::new(observed))
}

fn refused(at: i64, is_listed: bool) -> Observed {
    Observed::CreateFailed(FailedCreate {
        namespace: "edge".to_owned(),
        owner: owner(),
        message: String::new(),
        at,
        is_listed,
    })
}

#[test]
fn only_pods_whose_exporter_does_not_run_are_kept() {
    let mut state = SidecarState::default();
    state.take(pod("a", 0, None, None));
    assert!(state.is_idle());
    state.take(pod("a", 0, Some(Reason::ImageNotPulled), None));
    state.pods.get_mut(&place("a")).unwrap().is_reported = true;
    state.take(pod("a", 0, None, None));
    let up = &state.pods[&place("a")];
    assert!(up.down.is_none() && !up.is_reported && up.has_recovered(0) && !up.has_recovered(60));
    state.take(pod("a", 0, Some(Reason::ExporterNotRunning), None));
    assert!(state.pods[&place("a")].down.is_some(), "what was before adds up");
    state.take(Observed::Gone(place("a")));
    assert!(state.is_idle());
}

#[test]
fn a_list_forgets_what_it_lacks_and_what_failed_before_has_no_beginning() {
    let mut state = SidecarState::default();
    state.take(pod("a", 0, Some(Reason::ImageNotPulled), Some(7)));
    assert!(state.pods[&place("a")].began.is_some());
    state.take(Observed::ListBegins);
    state.take(pod("b", 0, Some(Reason::ImageNotPulled), None));
    assert!(state.pods.contains_key(&place("a")), "until the list is complete");
    state.take(Observed::ListEnds);
    assert!(!state.pods.contains_key(&place("a")) && state.trials.is_empty());
    assert!(state.is_known && state.pods[&place("b")].began.is_none());
}

#[test]
fn a_refusal_counts_when_it_is_new_and_a_pod_made_since_ends_it() {
    let now = seconds_now();
    let mut state = SidecarState::default();
    state.take(refused(now - 600, true));
    assert!(state.is_idle(), "an Event of ten minutes ago");
    state.take(refused(now, false));
    let first = state.refusals["u"].last;
    state.take(refused(now, false));
    assert_eq!(state.refusals["u"].last, first, "the same Event again");
    state.take(refused(now + 1, false));
    assert!(state.refusals["u"].last > first && state.refusals["u"].first == first);
    state.take(pod("old", now - 5, None, None));
    assert_eq!(state.refusals.len(), 1);
    state.take(pod("new", now + 2, None, None));
    assert!(state.refusals.is_empty());
    state.unrelated.insert("u".to_owned(), Instant::now());
    state.take(refused(now + 3, false));
    assert!(state.refusals.is_empty());
}

#[test]
fn an_older_trial_does_not_hide_a_newer_one() {
    let mut state = SidecarState::default();
    let key = ("edge".to_owned(), "edge-gwmon".to_owned());
    state.take(pod("new", 0, None, Some(9)));
    state.take(pod("old", 0, None, Some(7)));
    assert_eq!((state.trials[&key].pod.as_str(), state.trials[&key].since), ("new", 9));
    assert!(state.trials[&key].has_run(0));
    state.take(pod("new", 0, Some(Reason::GatewayNotStarting), Some(9)));
    assert!(!state.trials[&key].has_run(0));
}
