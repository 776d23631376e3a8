//! The topics under a daemon's root.

/// The topics of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    root: String,
    /// The filter and the topic of a queue that several daemons share.
    shared_queue: Option<(String, String)>,
}

/// The kind of an incoming message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// A request for a job.
    Request,
    /// A request to cancel a job.
    Cancel,
}

impl Topics {
    /// Creates the topics under this root.
    pub fn new(root: impl Into<String>) -> Self {
        Self { root: root.into(), shared_queue: None }
    }

    /// Adds a queue that is shared with other daemons, as its filter and its topic.
    pub fn with_shared_queue(self, queue: Option<(&str, &str)>) -> Self {
        let shared_queue = queue.map(|(filter, topic)| (filter.to_owned(), topic.to_owned()));
        Self { shared_queue, ..self }
    }

    /// The filter of the shared queue, if there is one.
    pub fn shared_filter(&self) -> Option<&str> {
        self.shared_queue.as_ref().map(|(filter, _)| filter.as_str())
    }

    /// The topic of the shared queue, if there is one.
    pub fn shared_topic(&self) -> Option<&str> {
        self.shared_queue.as_ref().map(|(_, topic)| topic.as_str())
    }

    /// Returns whether a topic is under the daemon's root, not a requester's response topic.
    pub fn is_own_topic(&self, topic: &str) -> bool {
        topic.strip_prefix(&self.root).is_some_and(|rest| rest.starts_with('/'))
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

    /// Returns the kind of a message on this topic, or `None` if it is not an input topic.
    pub fn kind(&self, topic: &str) -> Option<MessageKind> {
        if self.shared_queue.as_ref().is_some_and(|(_, shared)| shared == topic) {
            return Some(MessageKind::Request);
        }
        match topic.strip_prefix(&self.root)? {
            "/request" => Some(MessageKind::Request),
            "/cancel" => Some(MessageKind::Cancel),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_recognised_by_its_whole_topic() {
        let topics = Topics::new("denoised/a");
        assert_eq!(topics.kind("denoised/a/request"), Some(MessageKind::Request));
        assert_eq!(topics.kind(&topics.cancel()), Some(MessageKind::Cancel));
        for other in ["denoised/ab/request", "denoised/a/request/x", "request", "denoised/a"] {
            assert_eq!(topics.kind(other), None, "{other}");
        }
    }
}
