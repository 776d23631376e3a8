//! A scripted MQTT broker: the test reads and writes each packet.

use bytes::BytesMut;
use denoised::mqtt::Topics;
use denoised::mqtt::client::{ClientCommand, ClientEvent, ClientSettings, MqttClient};
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Packet, PubAck, PubAckReason, Publish, SubAck,
    SubscribeReasonCode,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::commands::TIMEOUT;

/// A listening broker.
pub struct MockBroker {
    listener: TcpListener,
    pub port: u16,
}

/// The broker's end of one connection.
pub struct MockConnection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl MockBroker {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// Opens a client of this broker whose topics are under `d`.
    pub fn client(&self) -> MqttClient {
        let settings = ClientSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            tls: None,
            client_id: "test".to_owned(),
            credentials: None,
            max_packet: 64 << 20,
            client_certificate: None,
            stall_timeout: Duration::from_secs(1),
        };
        MqttClient::open(settings, Topics::new("d")).unwrap()
    }

    /// Accepts the next TCP connection, before its first packet.
    pub async fn accept_tcp(&self) -> MockConnection {
        let accepted = tokio::time::timeout(TIMEOUT, self.listener.accept()).await;
        let (stream, _) = accepted.expect("no client connected in time").unwrap();
        MockConnection { stream, buffer: BytesMut::new() }
    }

    /// Accepts the next MQTT connection with these properties, and acknowledges its subscriptions.
    pub async fn accept(&self, session_present: bool, properties: ConnAckProperties) -> MockConnection {
        let mut connection = self.accept_tcp().await;
        assert!(matches!(connection.read().await, Packet::Connect(..)));
        connection
            .write(Packet::ConnAck(ConnAck {
                session_present,
                code: ConnectReturnCode::Success,
                properties: Some(properties),
            }))
            .await;
        let Packet::Subscribe(subscribe) = connection.read().await else { panic!("no SUBSCRIBE packet") };
        let topics: Vec<_> = subscribe.filters.iter().map(|filter| filter.path.as_str()).collect();
        assert_eq!(topics, ["d/request", "d/cancel"]);
        let return_codes = vec![SubscribeReasonCode::Success(rumqttc::v5::mqttbytes::QoS::AtLeastOnce); 2];
        let suback = SubAck { pkid: subscribe.pkid, return_codes, properties: None };
        connection.write(Packet::SubAck(suback)).await;
        connection
    }
}

/// Returns CONNACK properties of which none is set.
pub fn no_properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

impl MockConnection {
    /// Reads the next packet, and answers pings.
    pub async fn read(&mut self) -> Packet {
        loop {
            match Packet::read(&mut self.buffer, None) {
                Ok(Packet::PingReq(_)) => {
                    self.write(Packet::PingResp(rumqttc::v5::mqttbytes::v5::PingResp)).await;
                }
                Ok(packet) => return packet,
                Err(Error::InsufficientBytes(_)) => {
                    let read = tokio::time::timeout(TIMEOUT, self.stream.read_buf(&mut self.buffer)).await;
                    let count = read.expect("no packet in time").unwrap();
                    assert!(count > 0, "the client closed the connection");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn write(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Reads the next packet, which must be a PUBLISH.
    pub async fn read_publish(&mut self) -> Publish {
        match self.read().await {
            Packet::Publish(publish) => publish,
            other => panic!("expected a PUBLISH packet, got {other:?}"),
        }
    }

    /// Reads messages, and returns their payloads as text with their packet identifiers.
    pub async fn read_messages(&mut self, count: usize) -> Vec<(String, u16)> {
        let mut messages = Vec::new();
        for _ in 0..count {
            let message = self.read_publish().await;
            messages.push((String::from_utf8(message.payload.to_vec()).unwrap(), message.pkid));
        }
        messages
    }

    pub async fn acknowledge(&mut self, packet_id: u16, reason: PubAckReason) {
        self.write(Packet::PubAck(PubAck { pkid: packet_id, reason, properties: None })).await;
    }
}

/// Returns the client's next event other than `Connected` and `Disconnected`.
pub async fn next_event(client: &mut MqttClient) -> ClientEvent {
    loop {
        let event = tokio::time::timeout(TIMEOUT, client.events.recv()).await;
        let event = event.expect("no event in time").unwrap();
        if !matches!(event, ClientEvent::Connected | ClientEvent::Disconnected) {
            return event;
        }
    }
}

/// Returns the number of the next event, which must be a delivery.
pub async fn next_delivered(client: &mut MqttClient) -> u64 {
    match next_event(client).await {
        ClientEvent::Delivered(number) => number,
        other => panic!("expected a delivery, got {other:?}"),
    }
}

/// Sends a message at QoS 1 whose payload is its number.
pub async fn send(client: &MqttClient, number: u64) {
    let message = denoised::mqtt::Message::new("d/image".to_owned(), number.to_string());
    client.commands.send(ClientCommand::Send { message, number: Some(number) }).await.unwrap();
}
