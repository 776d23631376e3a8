//! The topics under a daemon's root.

mod home_assistant;

use super::reasons::Reason;

/// The levels below the root that the daemon uses.
const OWN_LEVELS: [&str; 12] = [
    "status",
    "state",
    "request",
    "cancel",
    "claim",
    "model",
    "image",
    "result",
    "error",
    "progress",
    "preview",
    "home_assistant",
];
/// The user property of a forwarded request: the topic on which the daemon that forwarded it waits for a claim.
pub const CLAIM_TOPIC: &str = "claim";
/// The topics below the root on which the daemon takes messages.
const INPUTS: [(&str, MessageKind); 4] = [
    ("/request", MessageKind::Request),
    ("/cancel", MessageKind::Cancel),
    ("/model/load", MessageKind::LoadModel),
    ("/model/unload", MessageKind::UnloadModel),
];

/// The topics of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    root: String,
    /// The filter and the topic of a queue that several daemons share.
    shared_queue: Option<(String, String)>,
    /// Those of an earlier configuration, which the broker's session may still have.
    former_queues: Vec<(String, String)>,
    /// The parts of the root before and after the name of the node, which differs in other daemons.
    around_node: Option<(String, String)>,
    /// The key of the configuration that distinguishes this root from that of another daemon.
    root_key: &'static str,
    /// The prefix of Home Assistant's topics, if it is enabled.
    discovery_prefix: Option<String>,
}

/// The kind of an incoming message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// A request for a job.
    Request,
    /// A request to cancel a job.
    Cancel,
    /// A request to load a model.
    LoadModel,
    /// A request to unload a model.
    UnloadModel,
    /// The answer of another daemon to a request that this one forwarded.
    Claim,
    /// A change of the settings that Home Assistant's entities show.
    Settings,
    /// A request for a job with these settings.
    Draw,
    /// A request to cancel all such jobs.
    CancelDrawn,
    /// Home Assistant has started or stopped.
    HomeAssistantStatus,
}

impl Topics {
    /// Creates the topics under this root.
    pub fn new(root: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            shared_queue: None,
            former_queues: Vec::new(),
            around_node: None,
            root_key: "mqtt.root",
            discovery_prefix: None,
        }
    }

    /// Adds a queue that is shared with other daemons, as its filter and its topic.
    pub fn with_shared_queue(self, queue: Option<(&str, &str)>) -> Self {
        let shared_queue = queue.map(|(filter, topic)| (filter.to_owned(), topic.to_owned()));
        Self { shared_queue, ..self }
    }

    /// Sets the key of the configuration that distinguishes this root from that of another daemon.
    pub fn with_root_key(self, root_key: &'static str) -> Self {
        Self { root_key, ..self }
    }

    /// Returns why another daemon draws every request too, and what to do.
    pub(super) fn same_root(&self) -> Reason {
        Reason::new(
            format!(
                "another client publishes on {}: a second daemon with this root draws every request too",
                self.state()
            ),
            format!("set `{}` to another value in one of them", self.root_key),
        )
    }

    /// Adds the parts of the root before and after the name of the node.
    pub fn with_node_between(self, around_node: Option<(&str, &str)>) -> Self {
        let around_node = around_node.map(|(before, after)| (before.to_owned(), after.to_owned()));
        Self { around_node, ..self }
    }

    /// Returns whether another daemon, whose root differs in the node only, takes messages there.
    pub fn is_command_of_another(&self, topic: &str) -> bool {
        let Some((before, after)) = &self.around_node else { return false };
        let node = INPUTS.into_iter().find_map(|(input, _)| {
            topic.strip_suffix(input)?.strip_prefix(before.as_str())?.strip_suffix(after.as_str())
        });
        node.is_some_and(|node| !node.is_empty() && !node.contains('/'))
    }

    /// Adds shared queues of an earlier configuration, as filters and topics. The daemon leaves them, and does the
    /// requests that the broker has already given to it.
    pub fn with_former_queues(self, former_queues: Vec<(String, String)>) -> Self {
        Self { former_queues, ..self }
    }

    /// The filters of shared queues that the daemon leaves.
    pub fn former_filters(&self) -> impl Iterator<Item = &str> {
        self.former_queues.iter().map(|(filter, _)| filter.as_str())
    }

    /// The filter of the shared queue, if there is one.
    pub fn shared_filter(&self) -> Option<&str> {
        self.shared_queue.as_ref().map(|(filter, _)| filter.as_str())
    }

    /// The topic of the shared queue, if there is one.
    pub fn shared_topic(&self) -> Option<&str> {
        self.shared_queue.as_ref().map(|(_, topic)| topic.as_str())
    }

    /// The filter and the topic of the fleet's queue of one model, if there is a shared queue. `level` is a topic level.
    pub fn model_queue(&self, level: &str) -> Option<(String, String)> {
        let (filter, topic) = self.shared_queue.as_ref()?;
        Some((format!("{filter}/{level}"), format!("{topic}/{level}")))
    }

    /// Returns whether a topic is the fleet's queue of one model.
    pub fn is_model_queue(&self, topic: &str) -> bool {
        let below = self.shared_topic().and_then(|shared| topic.strip_prefix(shared)?.strip_prefix('/'));
        below.is_some_and(|level| !level.is_empty() && !level.contains('/'))
    }

    /// Returns whether a filter is that of the fleet's queue of one model.
    pub(super) fn is_model_filter(&self, filter: &str) -> bool {
        let below = self.shared_filter().and_then(|shared| filter.strip_prefix(shared));
        below.is_some_and(|below| below.starts_with('/'))
    }

    /// The topic on which the daemon receives claims of the requests that it forwards.
    pub fn claim(&self) -> String {
        self.under_root("claim")
    }

    /// Returns whether the daemon publishes or receives on a topic, which no requester may choose for its answers.
    pub fn is_own_topic(&self, topic: &str) -> bool {
        let shared_queue = self.shared_queue.as_ref().map(|(_, topic)| topic.as_str());
        let below_root = topic.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/'));
        let first = below_root.and_then(|rest| rest.split('/').next());
        shared_queue == Some(topic)
            || self.is_model_queue(topic)
            || first.is_some_and(|first| OWN_LEVELS.contains(&first))
    }

    fn under_root(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    /// The topic of `online` and `offline`.
    pub fn status(&self) -> String {
        self.under_root("status")
    }

    /// The topic of the daemon's state, as JSON.
    pub fn state(&self) -> String {
        self.under_root("state")
    }

    /// The topic of finished images.
    pub fn image(&self) -> String {
        self.under_root("image")
    }

    /// The topic of a job's result, with its receipts.
    pub fn result(&self, id: &str) -> String {
        self.under_root(&format!("result/{id}"))
    }

    /// The topic of a job's error.
    pub fn error(&self, id: &str) -> String {
        self.under_root(&format!("error/{id}"))
    }

    /// The topic of a job's progress.
    pub fn progress(&self, id: &str) -> String {
        self.under_root(&format!("progress/{id}"))
    }

    /// The topic of a job's previews.
    pub fn preview(&self, id: &str) -> String {
        self.under_root(&format!("preview/{id}"))
    }

    /// The topic on which the daemon receives requests.
    pub fn request(&self) -> String {
        self.under_root("request")
    }

    /// The topic on which the daemon receives cancellations.
    pub fn cancel(&self) -> String {
        self.under_root("cancel")
    }

    /// The topics below the root on which the daemon receives messages, that of requests first.
    pub fn inputs(&self) -> impl Iterator<Item = String> {
        let claim = self.shared_queue.iter().map(|_| self.claim());
        INPUTS.into_iter().map(|(input, _)| format!("{}{input}", self.root)).chain(claim)
    }

    /// The topic of the answer to a request to load or unload a model.
    pub fn model_result(&self, id: &str) -> String {
        self.under_root(&format!("model/result/{id}"))
    }

    /// Returns the kind of a message on this topic, or `None` if it is not an input topic.
    pub fn kind(&self, topic: &str) -> Option<MessageKind> {
        if self.shared_queue.iter().chain(&self.former_queues).any(|(_, shared)| shared == topic) {
            return Some(MessageKind::Request);
        }
        if self.is_model_queue(topic) {
            return Some(MessageKind::Request);
        }
        match topic.strip_prefix(&self.root) {
            Some("/claim") if self.shared_queue.is_some() => Some(MessageKind::Claim),
            below_root => {
                let input = INPUTS.into_iter().find(|(input, _)| below_root == Some(*input));
                input.map(|(_, kind)| kind).or_else(|| self.home_assistant_kind(topic))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_of_the_daemon_is_its_own_and_others_below_its_root_are_not() {
        let topics = Topics::new("a/b").with_shared_queue(Some(("$share/g/queue", "queue")));
        let fixed = [topics.status(), topics.state(), topics.image(), topics.request(), topics.cancel()];
        let of_a_job = [
            topics.result("x"),
            topics.error("x"),
            topics.progress("x"),
            topics.preview("x"),
            topics.model_result("x"),
            topics.settings(),
            topics.draw(),
            "queue".to_owned(),
            "queue/digits".to_owned(),
            topics.claim(),
        ];
        for own in fixed.iter().chain(&of_a_job) {
            assert!(topics.is_own_topic(own), "{own}");
        }
        for other in ["a/b", "a/b/answers", "a/bc/request", "request", "queue/x/y", "queue/", "x/a/b/request"]
        {
            assert!(!topics.is_own_topic(other), "{other}");
        }
    }

    #[test]
    fn a_command_topic_of_another_daemon_is_recognised_by_the_root() {
        let topics = Topics::new("home/a/d").with_node_between(Some(("home/", "/d")));
        for other in ["home/b/d/request", "home/c/d/cancel", "home/c/d/model/load"] {
            assert!(topics.is_command_of_another(other), "{other}");
        }
        for free in
            ["home/b/request", "home/b/d/image", "home/b/c/d/request", "home//d/request", "x/b/d/request"]
        {
            assert!(!topics.is_command_of_another(free), "{free}");
        }
        assert!(!Topics::new("home").is_command_of_another("home/b/d/request"));
    }

    #[test]
    fn an_input_is_recognised_by_its_whole_topic() {
        let topics = Topics::new("denoised/a");
        assert_eq!(topics.kind("denoised/a/request"), Some(MessageKind::Request));
        assert_eq!(topics.kind(&topics.cancel()), Some(MessageKind::Cancel));
        assert_eq!(topics.kind("denoised/a/model/unload"), Some(MessageKind::UnloadModel));
        for other in [
            "denoised/a/model",
            "denoised/a/load",
            "denoised/ab/request",
            "denoised/a/request/x",
            "request",
            "denoised/a",
        ] {
            assert_eq!(topics.kind(other), None, "{other}");
        }
    }

    #[test]
    fn the_queue_of_a_model_is_below_the_shared_one() {
        let topics = Topics::new("d").with_shared_queue(Some(("$share/g/jobs", "jobs")));
        let expected = ("$share/g/jobs/digits".to_owned(), "jobs/digits".to_owned());
        assert_eq!(topics.model_queue("digits"), Some(expected));
        assert_eq!(topics.kind("jobs/digits"), Some(MessageKind::Request));
        assert_eq!(topics.kind("d/claim"), Some(MessageKind::Claim));
        let alone = Topics::new("d");
        assert_eq!((alone.model_queue("digits"), alone.kind("d/claim")), (None, None));
    }

    #[test]
    fn two_daemons_with_one_root_are_advised_by_the_key_that_distinguishes_them() {
        for key in ["mqtt.root", "node"] {
            let topics = Topics::new("home/printer").with_root_key(key);
            assert_eq!(
                topics.same_root().to_string(),
                format!(
                    "another client publishes on home/printer/state: a second daemon with this root draws every request \
                     too; set `{key}` to another value in one of them"
                )
            );
        }
    }
}
