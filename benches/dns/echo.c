/* The ceiling: what a socket on this machine can do when answering costs nothing.
 *
 *   echo PORT OCTETS
 *
 * One thread takes datagrams in batches, marks each as a reply, makes it OCTETS longer, and sends the batch back: the
 * same system calls and the same octets on the wire as a server's, and no more. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Slots are a little over a round number apart, so that they do not all fall on the same lines of the cache. */
enum { BATCH = 64, ROOM = 2048 + 64, RECEIVED = 1024 };

static unsigned char data[BATCH][ROOM];
static struct sockaddr_in peers[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];

static int bound(int port) {
  int sock = socket(AF_INET, SOCK_DGRAM, 0), buffer = 4 << 20;
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  if (sock < 0 || bind(sock, (struct sockaddr *)&addr, sizeof addr) < 0) {
    perror("echo");
    exit(1);
  }
  return sock;
}

static int take(int sock) {
  for (int i = 0; i < BATCH; i++) {
    vectors[i] = (struct iovec){.iov_base = data[i], .iov_len = RECEIVED};
    messages[i].msg_hdr = (struct msghdr){
        .msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &vectors[i], .msg_iovlen = 1};
  }
  return recvmmsg(sock, messages, BATCH, MSG_WAITFORONE, NULL);
}

static void give(int sock, int count, size_t longer) {
  for (int i = 0; i < count; i++) {
    data[i][2] |= 0x84; /* QR, AA */
    data[i][7] = longer > 0; /* ANCOUNT */
    vectors[i].iov_len = messages[i].msg_len + longer;
  }
  for (int done = 0, sent; done < count; done += sent)
    if ((sent = sendmmsg(sock, messages + done, count - done, 0)) <= 0) return;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fputs("usage: echo PORT OCTETS\n", stderr);
    return 2;
  }
  int sock = bound(atoi(argv[1]));
  size_t longer = strtoul(argv[2], NULL, 10);
  if (longer > ROOM - RECEIVED) longer = ROOM - RECEIVED;
  for (;;) {
    int count = take(sock);
    if (count > 0) give(sock, count, longer);
  }
}
