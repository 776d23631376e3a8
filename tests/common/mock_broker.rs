//! A scripted MQTT broker: the test reads and writes each packet.

use bytes::BytesMut;
use denoised::mqtt::client::{ClientCommand, ClientEvent, ClientSettings, MqttClient};
use denoised::mqtt::{QoS, Topics};
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, LastWill, Packet, PingReq, PingResp, PubAck, PubAckReason,
    Publish, SubAck, SubscribeReasonCode,
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
        self.client_of(Topics::new("d"))
    }

    /// Opens a client of this broker with these topics.
    pub fn client_of(&self, topics: Topics) -> MqttClient {
        MqttClient::open(self.settings(), topics).unwrap()
    }

    /// The settings of a client of this broker.
    pub fn settings(&self) -> ClientSettings {
        ClientSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            tls: None,
            client_id: "test".to_owned(),
            credentials: None,
            max_packet: 64 << 20,
            qos: QoS::AtLeastOnce,
            client_certificate: None,
            stall_timeout: Duration::from_secs(1),
        }
    }

    /// Accepts the next TCP connection, before its first packet.
    pub async fn accept_tcp(&self) -> MockConnection {
        let accepted = tokio::time::timeout(TIMEOUT, self.listener.accept()).await;
        let (stream, _) = accepted.expect("no client connected in time").unwrap();
        MockConnection { stream, buffer: BytesMut::new() }
    }

    /// Accepts the next MQTT connection with these properties. Also returns its last will.
    pub async fn accept_mqtt(
        &self,
        session_present: bool,
        properties: ConnAckProperties,
    ) -> (MockConnection, LastWill) {
        let mut connection = self.accept_tcp().await;
        let will = connection.read_connect().await;
        let (code, properties) = (ConnectReturnCode::Success, Some(properties));
        connection.write(Packet::ConnAck(ConnAck { session_present, code, properties })).await;
        (connection, will)
    }

    /// Accepts the next MQTT connection with these properties, and acknowledges its subscriptions.
    pub async fn accept(&self, session_present: bool, properties: ConnAckProperties) -> MockConnection {
        let (mut connection, _) = self.accept_mqtt(session_present, properties).await;
        connection.answer_subscribe(&OWN_TOPICS, GRANTED).await;
        connection
    }
}

/// The topics on which a daemon with the root `d` takes messages.
pub const OWN_TOPICS: [&str; 4] = ["d/request", "d/cancel", "d/model/load", "d/model/unload"];

/// A granted subscription.
pub const GRANTED: SubscribeReasonCode =
    SubscribeReasonCode::Success(rumqttc::v5::mqttbytes::QoS::AtLeastOnce);

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
    /// Reads CONNECT, and returns its last will.
    pub async fn read_connect(&mut self) -> LastWill {
        let Packet::Connect(_, Some(will), _) = self.read().await else {
            panic!("no CONNECT packet with a will")
        };
        will
    }

    /// Refuses the connection.
    pub async fn refuse(&mut self, code: ConnectReturnCode) {
        self.write(Packet::ConnAck(ConnAck { session_present: false, code, properties: None })).await;
    }

    /// Reads a SUBSCRIBE packet, which must have these filters, and answers each with this reason code.
    pub async fn answer_subscribe(&mut self, filters: &[&str], code: SubscribeReasonCode) {
        let Packet::Subscribe(subscribe) = self.read_any().await else { panic!("no SUBSCRIBE packet") };
        let paths: Vec<_> = subscribe.filters.iter().map(|filter| filter.path.as_str()).collect();
        assert_eq!(paths, filters);
        self.suback(subscribe.pkid, vec![code; filters.len()]).await;
    }

    pub async fn suback(&mut self, packet_id: u16, return_codes: Vec<SubscribeReasonCode>) {
        self.write(Packet::SubAck(SubAck { pkid: packet_id, return_codes, properties: None })).await;
    }

    /// Reads the next packet. Answers pings, and the subscription by which the client looks for other daemons.
    pub async fn read(&mut self) -> Packet {
        loop {
            match self.read_any().await {
                Packet::Subscribe(subscribe) if subscribe.filters[0].path == "d/state" => {
                    self.suback(subscribe.pkid, vec![GRANTED]).await;
                }
                packet => return packet,
            }
        }
    }

    /// Reads the next packet, and answers pings.
    async fn read_any(&mut self) -> Packet {
        loop {
            match self.next_packet().await {
                Packet::PingReq(_) => self.write(Packet::PingResp(PingResp)).await,
                packet => return packet,
            }
        }
    }

    /// Reads the next packet.
    async fn next_packet(&mut self) -> Packet {
        loop {
            match Packet::read(&mut self.buffer, None) {
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

    /// Answers pings for this time, in which the client must send nothing else and keep the connection. Returns the number
    /// of pings.
    pub async fn answer_pings(&mut self, time: Duration) -> usize {
        let mut count = 0;
        let pings = async {
            loop {
                assert_eq!(self.next_packet().await, Packet::PingReq(PingReq));
                self.write(Packet::PingResp(PingResp)).await;
                count += 1;
            }
        };
        let elapsed: Result<(), _> = tokio::time::timeout(time, pings).await;
        assert!(elapsed.is_err());
        count
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

/// Returns the client's next report of what the broker does not serve.
pub async fn next_deficits(client: &mut MqttClient) -> Vec<String> {
    loop {
        let event = tokio::time::timeout(TIMEOUT, client.events.recv()).await;
        if let ClientEvent::Deficits(deficits) = event.expect("no event in time").unwrap() {
            return deficits;
        }
    }
}

/// Returns the client's next event other than those of the connection itself.
pub async fn next_event(client: &mut MqttClient) -> ClientEvent {
    loop {
        let event = tokio::time::timeout(TIMEOUT, client.events.recv()).await;
        let event = event.expect("no event in time").unwrap();
        if !matches!(
            event,
            ClientEvent::Connected { .. }
                | ClientEvent::TakenOver
                | ClientEvent::Subscribed
                | ClientEvent::Disconnected
                | ClientEvent::Deficits(_)
        ) {
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

/// Starts a server that answers the first bytes of each connection with those that `answer` returns, and closes it.
/// Returns its port.
pub fn serve(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut received = [0; 1024];
            let count = stream.read(&mut received).unwrap_or(0);
            let _ = stream.write_all(&answer(&received[..count]));
        }
    });
    port
}
