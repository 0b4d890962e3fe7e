use super::*;

const TIMING: Timing = Timing { suspend_after: 30, first_retry: 300 };

fn failed(before: Option<&Suspension>, at: i64) -> Suspension {
    let text = str::to_owned;
    let workload =
        Workload { api_version: text("apps/v1"), kind: text("Deployment"), name: text("edge"), uid: text("u") };
    Suspension::failed(before, workload, &Finding::new(Reason::ImageNotPulled, "not found"), at, TIMING)
}

fn all(entries: &[(&str, &str, Suspension)]) -> Suspensions {
    let data = entries
        .iter()
        .map(|(namespace, name, entry)| {
            (
                Suspensions::data_key(&((*namespace).to_owned(), (*name).to_owned())),
                serde_json::to_string(entry).unwrap(),
            )
        })
        .collect();
    Suspensions::parse(&data)
}

#[test]
fn the_back_off_doubles_up_to_an_hour_and_starts_anew_after_an_hour_without_failure() {
    let mut entry = failed(None, 0);
    let mut waits = vec![entry.until];
    for _ in 0..5 {
        let now = entry.until;
        let trial = entry.at(now, TIMING).unwrap();
        assert_eq!(trial.phase, Phase::Trial);
        let watched = trial.watched("pod", now, TIMING);
        entry = failed(Some(&watched), now);
        waits.push(entry.until - now);
    }
    assert_eq!(waits, [300, 600, 1200, 2400, 3600, 3600]);
    assert_eq!(TIMING.back_off(u32::MAX), 3600);
    let resumed = entry.resumed(0, TIMING);
    assert_eq!(resumed.at(3599, TIMING).map(|entry| entry.phase), Some(Phase::Resumed));
    assert_eq!(resumed.at(3600, TIMING), None);
    assert_eq!(failed(Some(&resumed), 0).until, 3600, "an image that can be pulled every other time does not flap");
}

#[test]
fn a_trial_that_comes_to_nothing_is_made_again_later() {
    let entry = failed(None, 0);
    assert_eq!(entry.at(299, TIMING), Some(entry.clone()));
    let trial = entry.at(300, TIMING).unwrap();
    assert_eq!(trial.at(3899, TIMING), Some(trial.clone()));
    assert_eq!(trial.at(3900, TIMING), None, "nobody has made a pod for an hour");
    let watched = trial.watched("pod", 1000, TIMING);
    assert_eq!((watched.phase, watched.pod.as_deref()), (Phase::Watched, Some("pod")));
    let again = watched.at(1600, TIMING).unwrap();
    assert_eq!((again.phase, again.until, again.failures), (Phase::Suspended, 1900, 1));
}

#[test]
fn entries_survive_the_config_map_and_broken_ones_are_not_there() {
    let entry = failed(None, 7);
    let read = all(&[("edge", "edge.x-gwmon", entry.clone())]);
    assert_eq!(read.get(&("edge".to_owned(), "edge.x-gwmon".to_owned())), Some(&entry));
    let broken = [("edge.a", "{}"), ("nothing", "{}"), ("edge.b", "")];
    assert!(Suspensions::parse(&broken.map(|(k, v)| (k.to_owned(), v.to_owned())).into()).is_empty());
}

#[test]
fn only_active_entries_keep_the_exporter_out() {
    let entry = failed(None, 0);
    let key = ("edge".to_owned(), "edge-gwmon".to_owned());
    let of = |entry: &Suspension| all(&[("edge", "edge-gwmon", entry.clone())]).obstacle(&key).map(|f| f.reason);
    assert_eq!(of(&entry), Some(Reason::InjectionSuspended));
    assert_eq!(of(&entry.watched("pod", 0, TIMING)), Some(Reason::InjectionSuspended));
    assert_eq!(of(&entry.resumed(0, TIMING)), None);
    assert_eq!(all(&[("west", "edge-gwmon", entry)]).obstacle(&key), None);
}

#[test]
fn many_at_once_for_one_reason_stop_all_injection_there() {
    let other = ("west".to_owned(), "other-gwmon".to_owned());
    let near = ("edge".to_owned(), "other-gwmon".to_owned());
    let obstacles =
        |suspensions: &Suspensions| [&other, &near].map(|key| suspensions.obstacle(key).map(|finding| finding.reason));
    let stopped = Some(Reason::InjectionStopped);
    let at = |namespace, name, since| (namespace, name, failed(None, since));
    let two = all(&[at("edge", "a", 0), at("edge", "b", 10)]);
    assert_eq!(obstacles(&two), [None, None]);
    let one_namespace = all(&[at("edge", "a", 0), at("edge", "b", 10), at("edge", "c", 300)]);
    assert_eq!(obstacles(&one_namespace), [None, stopped]);
    let two_namespaces = all(&[at("edge", "a", 0), at("edge", "b", 10), at("south", "c", 300)]);
    assert_eq!(obstacles(&two_namespaces), [None, None], "these may be one person's");
    let three_namespaces = all(&[at("edge", "a", 0), at("north", "b", 10), at("south", "c", 300)]);
    assert_eq!(obstacles(&three_namespaces), [stopped, stopped]);
    let slowly = all(&[at("edge", "a", 0), at("north", "b", 200), at("south", "c", 400)]);
    assert_eq!(obstacles(&slowly), [None, None]);
    let trial = |mut entry: (&'static str, &'static str, Suspension)| {
        entry.2 = entry.2.on_trial(300, TIMING);
        entry
    };
    let tried = all(&[trial(at("edge", "a", 0)), at("north", "b", 10), at("south", "c", 30)]);
    assert_eq!(obstacles(&tried), [None, None], "it ends with the first back-off");
    let mut resumed = at("edge", "a", 0);
    resumed.2 = resumed.2.resumed(20, TIMING);
    assert_eq!(obstacles(&all(&[resumed, at("north", "b", 10), at("south", "c", 30)])), [None, None]);
    let refused = |namespace| {
        let mut entry = at(namespace, "a", 0);
        entry.2.reason = Reason::PodRefused.as_str().to_owned();
        entry
    };
    assert_eq!(obstacles(&all(&["edge", "north", "south"].map(refused))), [None, None], "that may be anything");
}
