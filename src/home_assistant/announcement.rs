//! The announcement: a retained message for each entity, or one for the device.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::device::{Device, origin};
use super::entities::Entity;
use crate::config::DiscoveryForm;
use crate::mqtt::Message;

/// Where and in which form the device is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Discovery {
    pub(super) prefix: String,
    pub(super) form: DiscoveryForm,
    pub(super) device: Device,
}

impl Discovery {
    /// Returns the payload of each discovery topic. `former` has the platforms of all components that a message for the
    /// device ever had; those that are missing now are removed.
    pub(super) fn documents(
        &self,
        entities: Vec<Entity>,
        former: &BTreeMap<String, String>,
    ) -> BTreeMap<String, Bytes> {
        let Self { prefix, form, device } = self;
        let id = &device.id;
        let config = |Entity { key, mut config, .. }: Entity| {
            config.insert("unique_id".to_owned(), format!("{id}_{key}").into());
            config
        };
        match form {
            DiscoveryForm::Component => entities
                .into_iter()
                .map(|entity| {
                    let topic = format!("{prefix}/{}/{id}/{}/config", entity.platform, entity.key);
                    let mut config = config(entity);
                    config.insert("device".to_owned(), device.to_json());
                    config.insert("origin".to_owned(), origin());
                    (topic, to_bytes(Value::Object(config)))
                })
                .collect(),
            DiscoveryForm::Device => {
                let mut components: Map<String, Value> = former
                    .iter()
                    .map(|(key, platform)| (key.clone(), json!({"platform": platform})))
                    .collect();
                components.extend(entities.into_iter().map(|entity| {
                    let (key, platform) = (entity.key.to_owned(), entity.platform);
                    let mut config = config(entity);
                    config.insert("platform".to_owned(), platform.into());
                    (key, Value::Object(config))
                }));
                let document =
                    json!({"device": device.to_json(), "origin": origin(), "components": components});
                BTreeMap::from([(format!("{prefix}/device/{id}/config"), to_bytes(document))])
            }
        }
    }

    /// Returns the platforms of the components of a message for the device; empty in the other form.
    pub(super) fn components(&self, entities: &[Entity]) -> BTreeMap<String, String> {
        let entities = entities.iter().filter(|_| self.form == DiscoveryForm::Device);
        entities.map(|entity| (entity.key.to_owned(), entity.platform.to_owned())).collect()
    }
}

/// The message that announces; an empty payload removes.
pub(super) fn message(topic: &str, payload: Bytes) -> Message {
    Message {
        retain: true,
        user_properties: vec![("type".into(), "discovery".to_owned())],
        ..Message::new(topic.to_owned(), payload)
    }
}

/// Returns the messages that remove what was announced on these topics.
pub(super) fn removals(topics: &BTreeSet<String>) -> impl Iterator<Item = Message> {
    topics.iter().map(|topic| message(topic, Bytes::new()))
}

fn to_bytes(document: Value) -> Bytes {
    document.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(key: &'static str, platform: &'static str) -> Entity {
        Entity { key, platform, config: Map::from_iter([("name".to_owned(), key.into())]) }
    }

    fn documents(form: DiscoveryForm, former: &[(&str, &str)]) -> BTreeMap<String, Value> {
        let device = Device::new("board", None);
        let discovery = Discovery { prefix: "ha".to_owned(), form, device };
        let former =
            former.iter().map(|(key, platform)| ((*key).to_owned(), (*platform).to_owned())).collect();
        let entities = vec![entity("picture", "image"), entity("seed", "number")];
        let documents = discovery.documents(entities, &former);
        documents.into_iter().map(|(topic, json)| (topic, serde_json::from_slice(&json).unwrap())).collect()
    }

    #[test]
    fn each_entity_has_a_message_with_the_device_in_it() {
        let documents = documents(DiscoveryForm::Component, &[]);
        let topics: Vec<_> = documents.keys().collect();
        assert_eq!(
            topics,
            ["ha/image/denoised_board/picture/config", "ha/number/denoised_board/seed/config"]
        );
        let seed = &documents["ha/number/denoised_board/seed/config"];
        assert_eq!((&seed["unique_id"], &seed["name"]), (&"denoised_board_seed".into(), &"seed".into()));
        assert_eq!(seed["device"]["identifiers"], json!(["denoised_board"]));
        assert_eq!(seed["origin"]["name"], "denoised");
    }

    #[test]
    fn the_message_of_the_device_removes_the_components_that_it_no_longer_has() {
        let former = [("prompt", "text"), ("seed", "number")];
        let documents = documents(DiscoveryForm::Device, &former);
        let (topic, document) = documents.first_key_value().unwrap();
        assert_eq!((topic.as_str(), documents.len()), ("ha/device/denoised_board/config", 1));
        assert_eq!(document["components"]["prompt"], json!({"platform": "text"}));
        assert_eq!(
            document["components"]["seed"],
            json!({"platform": "number", "name": "seed", "unique_id": "denoised_board_seed"})
        );
        assert_eq!(document["components"]["picture"]["platform"], "image");
        assert_eq!(document["device"]["identifiers"], json!(["denoised_board"]));
    }
}
