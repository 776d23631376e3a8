/*
 * Receives one picture with a buffer of 512 bytes, whatever its size: small_subscriber HOST PORT TOPIC FILE.
 *
 *     cc -o small_subscriber small_subscriber.c
 *     ./small_subscriber localhost 1883 denoised/board/image picture.jpg
 *
 * It speaks the part of MQTT 3.1.1 that a subscriber with QoS 0 needs. Nothing is allocated, and the payload is passed
 * on in pieces as it arrives. It uses Berkeley sockets alone, which lwIP on an ESP32 has too; there a function that
 * feeds the decoder of a JPEG file would take the place of on_chunk().
 */
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { CONNECT = 0x10, CONNACK = 0x20, PUBLISH = 0x30, SUBSCRIBE = 0x82, SUBACK = 0x90, PINGREQ = 0xc0 };
/* A longer topic would need a length of two bytes in SUBSCRIBE. */
enum { KEEP_ALIVE_S = 60, MAX_TOPIC = 120 };

static uint8_t buffer[512];
static int peer;
static FILE *output;

static void fail(const char *message)
{
    fprintf(stderr, "small_subscriber: %s\n", message);
    exit(1);
}

/* A piece of the payload: `size` bytes from `offset` of `total`. */
static void on_chunk(const uint8_t *bytes, size_t size, uint32_t offset, uint32_t total)
{
    (void)offset;
    (void)total;
    if (fwrite(bytes, 1, size, output) != size)
        fail("cannot write the file");
}

static void write_all(const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(peer, bytes, size, 0);
        if (sent <= 0)
            fail("the connection is lost");
        bytes += sent;
        size -= (size_t)sent;
    }
}

/* Reads exactly `size` bytes. While no packet has begun, it keeps the connection alive. */
static void read_all(uint8_t *bytes, size_t size, int is_idle)
{
    while (size > 0) {
        ssize_t received = recv(peer, bytes, size, 0);
        if (received < 0 && is_idle) {
            const uint8_t ping[] = {PINGREQ, 0};
            write_all(ping, sizeof ping);
            continue;
        }
        if (received <= 0)
            fail("the connection is lost");
        bytes += received;
        size -= (size_t)received;
    }
}

static uint8_t read_byte(void)
{
    uint8_t byte;
    read_all(&byte, 1, 0);
    return byte;
}

/* Reads the first byte of a packet, and the number of bytes that follow its length. */
static uint8_t read_header(uint32_t *remaining)
{
    uint8_t type, byte;
    read_all(&type, 1, 1);
    *remaining = 0;
    for (int shift = 0; shift < 28; shift += 7) {
        byte = read_byte();
        *remaining |= (uint32_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return type;
    }
    fail("the broker sent no MQTT packet");
    return 0;
}

/* Reads a payload in pieces; drops it unless `is_wanted`. */
static void read_payload(uint32_t total, int is_wanted)
{
    for (uint32_t offset = 0; offset < total;) {
        size_t size = total - offset < sizeof buffer ? total - offset : sizeof buffer;
        read_all(buffer, size, 0);
        if (is_wanted)
            on_chunk(buffer, size, offset, total);
        offset += (uint32_t)size;
    }
}

static size_t put_text(uint8_t *at, const char *text)
{
    size_t length = strlen(text);
    at[0] = (uint8_t)(length >> 8);
    at[1] = (uint8_t)length;
    memcpy(at + 2, text, length);
    return length + 2;
}

static void connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        fail("unknown host");
    peer = socket(found->ai_family, found->ai_socktype, 0);
    if (peer < 0 || connect(peer, found->ai_addr, found->ai_addrlen) != 0)
        fail("cannot connect to the broker");
    freeaddrinfo(found);
    struct timeval half = {.tv_sec = KEEP_ALIVE_S / 2};
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &half, sizeof half);
    /* Protocol "MQTT", level 4, clean session, keep alive, and an empty client id, which the broker replaces. */
    const uint8_t packet[] = {CONNECT, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, KEEP_ALIVE_S, 0, 0};
    write_all(packet, sizeof packet);
    uint32_t remaining;
    if (read_header(&remaining) != CONNACK || remaining != 2)
        fail("the broker sent no CONNACK");
    read_byte();
    if (read_byte() != 0)
        fail("the broker refuses the connection");
}

static void subscribe(const char *topic)
{
    size_t length = 4;
    buffer[0] = SUBSCRIBE;
    buffer[2] = 0;
    buffer[3] = 1; /* packet identifier */
    length += put_text(buffer + length, topic);
    buffer[length++] = 0; /* QoS */
    buffer[1] = (uint8_t)(length - 2);
    write_all(buffer, length);
}

int main(int count, char **arguments)
{
    if (count != 5)
        fail("usage: small_subscriber HOST PORT TOPIC FILE");
    if (strlen(arguments[3]) > MAX_TOPIC)
        fail("the topic is too long");
    if (!(output = fopen(arguments[4], "wb")))
        fail("cannot create the file");
    connect_to(arguments[1], arguments[2]);
    subscribe(arguments[3]);
    for (;;) {
        uint32_t remaining;
        uint8_t type = read_header(&remaining);
        if (type == SUBACK) {
            read_payload(remaining, 0);
            fprintf(stderr, "subscribed\n");
        } else if ((type & 0xf0) == PUBLISH) {
            uint32_t topic = (uint32_t)read_byte() << 8;
            topic |= read_byte();
            read_payload(topic, 0);
            read_payload(remaining - 2 - topic, 1);
            break;
        } else {
            read_payload(remaining, 0);
        }
    }
    close(peer);
    return fclose(output) == 0 ? 0 : 1;
}
