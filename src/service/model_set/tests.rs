//! Tables of what happens to models, with real bundles that no engine evaluates.

use std::path::Path;

use super::*;
use crate::config::Config;
use crate::inference::{EngineKind, EngineOptions, SessionPool};
use crate::job::ModelTarget;
use crate::model::Model;
use crate::mqtt::client::AckToken;
use crate::service::model_source::ModelSources;

/// The sources of models in directories that do not exist.
fn sources(paths: &[&str]) -> Vec<ModelSource> {
    let mut config = Config::default();
    config.models.paths = paths.iter().map(Into::into).collect();
    ModelSources::new(&config).configured()
}

fn source(path: &str) -> ModelSource {
    sources(&[path]).remove(0)
}

/// A card, which differs from that of every other call.
fn card() -> Arc<ModelCard> {
    let gaussian = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gaussian");
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    ModelCard::new(&Model::open(&SessionPool::default(), &gaussian, &options, Arc::new(|_| {})).unwrap())
}

/// Serves the models of these directories.
fn serving(paths: &[&str]) -> ModelSet {
    let mut models = ModelSet::new(sources(paths));
    let cards = paths.iter().map(|_| card()).collect();
    assert!(models.on_ready(cards, Instant::now()).is_empty());
    models
}

fn requester(id: &str, sha256: Option<&str>) -> Requester {
    Requester {
        id: id.to_owned(),
        reply: None,
        sha256: sha256.map(str::to_owned),
        arrival: std::time::Instant::now(),
        command: (0, AckToken::without_broker("d/model/load")),
    }
}

/// The actions in words.
fn words(actions: &[ModelAction]) -> Vec<String> {
    let word = |action: &ModelAction| match action {
        ModelAction::Load(load) => format!("load {}", load.path.display()),
        ModelAction::Retire(_) => "retire".to_owned(),
        ModelAction::Answer(to, Ok(ModelOutcome::Loaded { .. })) => format!("{} loaded", to.id),
        ModelAction::Answer(to, Ok(ModelOutcome::Unloaded { .. })) => format!("{} unloaded", to.id),
        ModelAction::Answer(to, Err(error)) => {
            format!("{} {} {}", to.id, error.code.name(), error.field.as_deref().unwrap_or("-"))
        }
    };
    actions.iter().map(word).collect()
}

/// The names of the served models, those that are loading and those that are unloading.
fn names(models: &mut ModelSet) -> [String; 3] {
    models.is_changed = true;
    let report = models.take_report().unwrap();
    let served = models.in_order().map(|served| served.source.name.as_str()).collect::<Vec<_>>();
    let loading = report.loading.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    [served.join(" "), loading.join(" "), report.unloading.join(" ")]
}

/// Ends the latest load.
fn loaded(models: &mut ModelSet, outcome: Result<Arc<ModelCard>, LoadFault>) -> Vec<String> {
    words(&models.on_loaded(models.latest_load, outcome, Instant::now()))
}

fn broken() -> Result<Arc<ModelCard>, LoadFault> {
    Err(LoadFault::Model("broken".to_owned()))
}

#[test]
fn a_reload_loads_new_models_one_by_one_and_retires_those_that_are_gone() {
    let mut models = serving(&["/m/a", "/m/b"]);
    let actions = models.configure(sources(&["/m/c", "/m/b", "/m/d"]));
    assert_eq!(words(&actions), ["load /m/c", "retire"]);
    assert_eq!(names(&mut models), ["b", "c d", "a"]);
    let ModelAction::Retire(left) = &actions[1] else { panic!() };
    assert_eq!(words(&models.on_unloaded(left)), [""; 0]);
    assert_eq!(loaded(&mut models, Ok(card())), ["load /m/d"]);
    assert_eq!(loaded(&mut models, Ok(card())), [""; 0]);
    assert_eq!(names(&mut models), ["c b d", "", ""]);
    // The same configuration in another order changes the default model only.
    assert_eq!(words(&models.configure(sources(&["/m/d", "/m/c", "/m/b"]))), [""; 0]);
    assert_eq!(names(&mut models)[0], "d c b");
}

#[test]
fn a_model_of_another_directory_serves_until_its_successor_is_loaded() {
    let mut models = serving(&["/m/a", "/m/b"]);
    assert_eq!(words(&models.configure(sources(&["/n/a", "/m/b"]))), ["load /n/a"]);
    assert_eq!(names(&mut models), ["a b", "a", ""]);
    assert_eq!(loaded(&mut models, broken()), [""; 0]);
    assert_eq!(names(&mut models), ["a b", "", ""]);
    // The next reload tries again.
    assert_eq!(words(&models.configure(sources(&["/n/a", "/m/b"]))), ["load /n/a"]);
    assert_eq!(loaded(&mut models, Ok(card())), ["retire"]);
    assert_eq!(names(&mut models), ["a b", "", "a"]);
    assert_eq!(models.served[1].source, source("/n/a"));
}

#[test]
fn the_last_model_stays_until_another_one_is_loaded() {
    let mut models = serving(&["/m/a"]);
    assert_eq!(words(&models.configure(sources(&["/m/b"]))), ["load /m/b"]);
    assert_eq!(loaded(&mut models, broken()), [""; 0]);
    assert_eq!(names(&mut models), ["a", "", ""]);
    assert_eq!(words(&models.configure(sources(&["/m/b"]))), ["load /m/b"]);
    assert_eq!(loaded(&mut models, Ok(card())), ["retire"]);
    assert_eq!(names(&mut models), ["b", "", "a"]);
}

#[test]
fn a_reload_during_the_start_is_applied_after_it() {
    let mut models = ModelSet::new(sources(&["/m/a", "/m/b"]));
    assert_eq!(names(&mut models), ["", "a b", ""]);
    assert_eq!(words(&models.configure(sources(&["/m/b", "/m/c"]))), [""; 0]);
    let actions = models.on_ready(vec![card(), card()], Instant::now());
    assert_eq!(words(&actions), ["load /m/c", "retire"]);
}

#[test]
fn a_model_that_is_dropped_while_it_is_loaded_never_serves() {
    let mut models = serving(&["/m/a"]);
    models.configure(sources(&["/m/a", "/m/b"]));
    assert_eq!(words(&models.configure(sources(&["/m/a"]))), [""; 0]);
    assert_eq!(loaded(&mut models, Ok(card())), ["retire"]);
    assert_eq!(names(&mut models), ["a", "", "b"]);
}

#[test]
fn requests_load_a_model_once_and_a_reload_ends_it() {
    let mut models = serving(&["/m/a"]);
    assert_eq!(words(&models.load(source("/m/b"), requester("1", None))), ["load /m/b"]);
    assert_eq!(words(&models.load(source("/m/b"), requester("2", None))), [""; 0]);
    assert_eq!(loaded(&mut models, Ok(card())), ["1 loaded", "2 loaded"]);
    assert_eq!(words(&models.load(source("/m/b"), requester("3", None))), ["3 loaded"]);
    let other = models.load(source("/n/b"), requester("4", None));
    assert_eq!(words(&other), ["4 conflict path"]);
    assert_eq!(names(&mut models), ["a b", "", ""]);
    assert_eq!(words(&models.configure(sources(&["/m/a"]))), ["retire"]);
    assert_eq!(words(&models.load(source("/m/c"), requester("5", None))), ["load /m/c"]);
    assert_eq!(words(&models.configure(sources(&["/m/a"]))), ["5 cancelled -"]);
}

#[test]
fn a_digest_is_checked_for_each_request() {
    let mut models = serving(&["/m/a"]);
    let real = models.served[0].card.digest();
    let wrong = "0".repeat(64);
    let already = [("1", Some(real.as_str())), ("2", Some(wrong.as_str()))]
        .map(|(id, sha256)| words(&models.load(source("/m/a"), requester(id, sha256))).concat());
    assert_eq!(already, ["1 loaded", "2 out_of_range sha256"]);
    models.load(source("/m/b"), requester("3", Some(&wrong)));
    models.load(source("/m/b"), requester("4", Some(&real)));
    models.load(source("/m/b"), requester("5", None));
    let found = Err(LoadFault::Digest(real.clone()));
    assert_eq!(loaded(&mut models, found), ["3 out_of_range sha256", "load /m/b"]);
    assert_eq!(loaded(&mut models, Ok(card())), ["4 loaded", "5 loaded"]);
    let ModelAction::Load(load) = &models.load(source("/m/c"), requester("6", Some(&wrong)))[0] else {
        panic!()
    };
    assert_eq!(load.sha256.as_ref(), Some(&wrong));
    assert_eq!(loaded(&mut models, Err(LoadFault::Digest(real))), ["6 out_of_range sha256"]);
    // It is not tried again.
    assert_eq!(names(&mut models), ["a b", "", ""]);
    models.load(source("/m/c"), requester("7", None));
    assert_eq!(loaded(&mut models, broken()), ["7 unknown_model path"]);
    assert_eq!(names(&mut models), ["a b", "", ""]);
}

#[test]
fn an_unloaded_model_is_answered_when_it_has_left() {
    let by_name = |name: &str| ModelTarget::Name(name.to_owned());
    let mut models = serving(&["/m/a", "/m/b"]);
    let actions = models.unload(&by_name("a"), requester("1", None));
    assert_eq!(words(&actions), ["retire"]);
    assert_eq!(names(&mut models), ["b", "", "a"]);
    assert_eq!(words(&models.unload(&by_name("a"), requester("2", None))), [""; 0]);
    let ModelAction::Retire(left) = &actions[0] else { panic!() };
    assert_eq!(words(&models.on_unloaded(left)), ["1 unloaded", "2 unloaded"]);
    assert_eq!(words(&models.unload(&by_name("a"), requester("3", None))), ["3 unknown_model model"]);
    let by_path = ModelTarget::Path("/m/b".into());
    assert_eq!(words(&models.unload(&by_path, requester("4", None))), ["4 out_of_range path"]);
    // One that is being loaded, and one that is to be loaded next.
    models.load(source("/m/c"), requester("5", None));
    models.load(source("/m/d"), requester("6", None));
    assert_eq!(words(&models.unload(&by_name("d"), requester("7", None))), ["6 cancelled -", "7 unloaded"]);
    assert_eq!(words(&models.unload(&by_name("c"), requester("8", None))), ["5 cancelled -"]);
    let card = card();
    assert_eq!(loaded(&mut models, Ok(Arc::clone(&card))), ["retire"]);
    assert_eq!(words(&models.on_unloaded(&card)), ["8 unloaded"]);
    assert_eq!(names(&mut models), ["b", "", ""]);
}

#[test]
fn a_lost_connection_drops_those_whose_message_is_delivered_again() {
    let mut models = serving(&["/m/a", "/m/b"]);
    models.load(source("/m/c"), requester("1", None));
    let actions = models.unload(&ModelTarget::Name("b".to_owned()), requester("2", None));
    models.on_disconnected();
    assert_eq!(words(&models.load(source("/m/c"), requester("1", None))), [""; 0]);
    assert_eq!(loaded(&mut models, Ok(card())), ["1 loaded"]);
    let ModelAction::Retire(left) = &actions[0] else { panic!() };
    assert_eq!(words(&models.on_unloaded(left)), [""; 0]);
}

#[test]
fn a_model_without_jobs_is_closed_after_the_limit() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut models = serving(&["/m/a", "/m/b"]);
    for served in &mut models.served {
        served.last_used = start;
    }
    assert!(models.take_idle(after(1000)).is_empty());
    models.set_idle_limit(Some(Duration::from_secs(10)));
    let [a, b] = [0, 1].map(|index| Arc::clone(&models.served[index].card));
    models.on_use(&a, after(5));
    assert!(models.take_idle(after(9)).is_empty());
    let idle = models.take_idle(after(10));
    assert!(idle.len() == 1 && Arc::ptr_eq(&idle[0], &b));
    // Its job goes on, and it is asked again after the same time.
    assert_eq!(models.take_idle(after(15)).len(), 1);
    assert_eq!(models.take_idle(after(19)).len(), 0);
    models.on_open(&b, false);
    assert!(models.take_idle(after(24)).is_empty());
    models.on_open(&b, true);
    assert_eq!(models.take_idle(after(24)).len(), 1);
}
