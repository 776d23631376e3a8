//! A broker that does what a test says, packet by packet.

use bytes::BytesMut;
use denoised::mqtt::Topics;
use denoised::mqtt::client::{ClientCommand, ClientEvent, MqttClient, Settings};
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Packet, PubAck, PubAckReason, Publish, SubAck,
    SubscribeReasonCode,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::daemon::PATIENCE;

/// Where it listens.
pub struct Scripted {
    listener: TcpListener,
    pub port: u16,
}

/// One connection of a client's.
pub struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Scripted {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// A link to it, of a daemon whose topics begin with `d`.
    pub fn link(&self) -> MqttClient {
        let settings = Settings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            tls: None,
            client_id: "test".to_owned(),
            credentials: None,
            max_packet: 64 << 20,
            client_certificate: None,
            patience: Duration::from_secs(1),
        };
        MqttClient::open(settings, Topics::new("d")).unwrap()
    }

    /// The next connection, before its first packet.
    pub async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted.expect("nobody connects").unwrap();
        Peer { stream, buffer: BytesMut::new() }
    }

    /// The next connection, accepted with these properties, its subscription confirmed.
    pub async fn welcome(&self, session_present: bool, properties: ConnAckProperties) -> Peer {
        let mut peer = self.accept().await;
        assert!(matches!(peer.read().await, Packet::Connect(..)));
        peer.write(Packet::ConnAck(ConnAck {
            session_present,
            code: ConnectReturnCode::Success,
            properties: Some(properties),
        }))
        .await;
        let Packet::Subscribe(subscribe) = peer.read().await else { panic!("no subscription") };
        let topics: Vec<_> = subscribe.filters.iter().map(|filter| filter.path.as_str()).collect();
        assert_eq!(topics, ["d/request", "d/cancel"]);
        let return_codes = vec![SubscribeReasonCode::Success(rumqttc::v5::mqttbytes::QoS::AtLeastOnce); 2];
        peer.write(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })).await;
        peer
    }
}

/// What a broker says of itself on a connection, nothing set.
pub fn nothing_said() -> ConnAckProperties {
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

impl Peer {
    /// The next packet; pings are answered and not told.
    pub async fn read(&mut self) -> Packet {
        loop {
            match Packet::read(&mut self.buffer, None) {
                Ok(Packet::PingReq(_)) => {
                    self.write(Packet::PingResp(rumqttc::v5::mqttbytes::v5::PingResp)).await;
                }
                Ok(packet) => return packet,
                Err(Error::InsufficientBytes(_)) => {
                    let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
                    assert!(read.expect("nothing comes").unwrap() > 0, "the client has gone");
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

    /// The next packet, which must be a message.
    pub async fn message(&mut self) -> Publish {
        match self.read().await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// The payloads of the next messages, as text, and their packet identifiers.
    pub async fn messages(&mut self, count: usize) -> Vec<(String, u16)> {
        let mut messages = Vec::new();
        for _ in 0..count {
            let message = self.message().await;
            messages.push((String::from_utf8(message.payload.to_vec()).unwrap(), message.pkid));
        }
        messages
    }

    pub async fn acknowledge(&mut self, packet: u16, reason: PubAckReason) {
        self.write(Packet::PubAck(PubAck { pkid: packet, reason, properties: None })).await;
    }
}

/// The next report that is none of being connected or not.
pub async fn report(link: &mut MqttClient) -> ClientEvent {
    loop {
        let report = tokio::time::timeout(PATIENCE, link.reports.recv()).await.expect("no report").unwrap();
        if !matches!(report, ClientEvent::Connected | ClientEvent::Disconnected) {
            return report;
        }
    }
}

/// The number of the message that the next report tells to be delivered.
pub async fn delivered(link: &mut MqttClient) -> u64 {
    match report(link).await {
        ClientEvent::Delivered(number) => number,
        other => panic!("{other:?}"),
    }
}

/// Ask for a message whose payload is its number, to be delivered at least once.
pub async fn send(link: &MqttClient, number: u64) {
    let message = denoised::mqtt::Message::new("d/image".to_owned(), number.to_string());
    link.asks.send(ClientCommand::Send { message, number: Some(number) }).await.unwrap();
}
