/* Asks a DNS server on this machine as fast as it answers.
 *
 *   load udp|tcp PORT SECONDS SOCKETS WINDOW QUERIES [COUNT]
 *
 * One thread keeps WINDOW questions under way on each of SOCKETS sockets, for SECONDS or until COUNT were answered. QUERIES holds
 * messages, each after its length in two octets, most significant first: as TCP carries them. They are asked in order,
 * over and over. Prints one line of words and numbers; `right` counts replies with code 0 and an answer, `nxdomain`
 * those with code 3. A question without a reply for a fifth of a second is lost. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, MOST_SOCKETS = 64, ROOM = 4096, STREAM_ROOM = 1 << 18, MOST_WINDOW = 512, MICROSECONDS = 1 << 20 };
static const double LOST_AFTER = 0.2;

typedef struct {
  const unsigned char *octets; /* the length first */
  unsigned length;             /* of the message */
} Query;

typedef struct {
  int fd;
  unsigned under_way;
  unsigned short next_id;
  double last_reply;
  double asked_at[2 * MOST_WINDOW]; /* by the id's low bits; 0: not under way */
  /* Of a stream: what has been read and is no whole message, and what could not be written yet. */
  unsigned char *in, *out;
  size_t in_length, out_at, out_length;
} Socket;

static Query *queries;
static size_t query_count, next_query;
static Socket *sockets;
static unsigned socket_count, window;
static unsigned long sent, replies, right, nxdomain, lost, octets_received;
static double latency_sum;
static unsigned latencies[MICROSECONDS];

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void read_queries(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) fail(path);
  fseek(file, 0, SEEK_END);
  size_t size = (size_t)ftell(file), at = 0;
  rewind(file);
  unsigned char *all = malloc(size);
  if (!all || fread(all, 1, size, file) != size) fail(path);
  fclose(file);
  queries = calloc(size / 14 + 1, sizeof *queries);
  while (at + 2 <= size) {
    unsigned length = (unsigned)all[at] << 8 | all[at + 1];
    queries[query_count++] = (Query){all + at, length};
    at += 2 + length;
  }
}

static const Query *taken(void) {
  const Query *query = &queries[next_query];
  if (++next_query == query_count) next_query = 0;
  return query;
}

static void open_socket(Socket *s, int type, int port) {
  int on = 1, buffer = 4 << 20;
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  s->fd = socket(AF_INET, type, 0);
  if (type == SOCK_DGRAM) {
    setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  } else {
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    s->in = malloc(STREAM_ROOM);
    s->out = malloc(STREAM_ROOM);
  }
  if (connect(s->fd, (struct sockaddr *)&addr, sizeof addr) < 0) fail("connect");
  s->last_reply = now();
}

static double *when(Socket *s, unsigned id) { return &s->asked_at[id % (2 * MOST_WINDOW)]; }

/* Counts a reply; a message that answers nothing under way is passed over. */
static void reply(Socket *s, const unsigned char *message, size_t length, double time) {
  if (length < 12 || !(message[2] & 0x80)) return;
  unsigned short id = (unsigned short)(message[0] << 8 | message[1]);
  double *asked_at = when(s, id);
  if (*asked_at == 0) return;
  double took = time - *asked_at;
  size_t microseconds = (size_t)(took * 1e6);
  *asked_at = 0;
  s->under_way--;
  s->last_reply = time;
  latency_sum += took;
  latencies[microseconds < MICROSECONDS ? microseconds : MICROSECONDS - 1]++;
  replies++;
  octets_received += length;
  unsigned code = message[3] & 15;
  right += code == 0 && (message[6] | message[7]);
  nxdomain += code == 3;
}

static void give_up(Socket *s, double time) {
  if (s->under_way == 0 || time - s->last_reply < LOST_AFTER) return;
  lost += s->under_way;
  s->under_way = 0;
  s->last_reply = time;
  memset(s->asked_at, 0, sizeof s->asked_at);
}

/* How many more to ask by datagrams now: not one at a time, which would measure this program. A stream takes what there is
 * room for at once: whoever waits there may be waiting for an acknowledgement that a server waits for. */
static unsigned wanted(const Socket *s) {
  unsigned room = window - s->under_way;
  return room >= (window < 16 ? 1 : window / 4) ? room : 0;
}

static unsigned char given[BATCH][ROOM], asked[BATCH][512];

static int datagrams(Socket *s) {
  static struct mmsghdr in[BATCH], out[BATCH];
  static struct iovec into[BATCH], from[BATCH];
  for (int i = 0; i < BATCH; i++) {
    into[i] = (struct iovec){given[i], ROOM};
    in[i].msg_hdr = (struct msghdr){.msg_iov = &into[i], .msg_iovlen = 1};
  }
  int received = recvmmsg(s->fd, in, BATCH, MSG_DONTWAIT, NULL);
  double time = now();
  for (int i = 0; i < received; i++) reply(s, given[i], in[i].msg_len, time);
  give_up(s, time);
  unsigned count = wanted(s);
  if (count > BATCH) count = BATCH;
  for (unsigned i = 0; i < count; i++) {
    const Query *query = taken();
    unsigned short id = (unsigned short)(s->next_id + i);
    memcpy(asked[i], query->octets + 2, query->length);
    asked[i][0] = (unsigned char)(id >> 8);
    asked[i][1] = (unsigned char)id;
    from[i] = (struct iovec){asked[i], query->length};
    out[i].msg_hdr = (struct msghdr){.msg_iov = &from[i], .msg_iovlen = 1};
  }
  int done = count > 0 ? sendmmsg(s->fd, out, count, 0) : 0;
  time = now();
  for (int i = 0; i < done; i++) *when(s, s->next_id + (unsigned)i) = time;
  if (done > 0) {
    s->next_id = (unsigned short)(s->next_id + done);
    s->under_way += (unsigned)done;
    sent += (unsigned)done;
  }
  return received > 0 || done > 0;
}

static int flush(Socket *s) {
  if (s->out_at == s->out_length) return 0;
  ssize_t done = send(s->fd, s->out + s->out_at, s->out_length - s->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (done < 0 && errno != EAGAIN) fail("send");
  if (done > 0) s->out_at += (size_t)done;
  return done > 0;
}

static int stream(Socket *s) {
  int moved = 0;
  ssize_t received = recv(s->fd, s->in + s->in_length, STREAM_ROOM - s->in_length, MSG_DONTWAIT);
  double time = now();
  if (received == 0) { errno = ECONNRESET; fail("the server ended a connection"); }
  if (received < 0 && errno != EAGAIN) fail("recv");
  if (received > 0) {
    size_t at = 0, length;
    s->in_length += (size_t)received;
    while (at + 2 <= s->in_length && at + 2 + (length = (size_t)s->in[at] << 8 | s->in[at + 1]) <= s->in_length) {
      reply(s, s->in + at + 2, length, time);
      at += 2 + length;
    }
    memmove(s->in, s->in + at, s->in_length - at);
    s->in_length -= at;
    moved = 1;
  }
  unsigned count = s->out_at == s->out_length ? window - s->under_way : 0;
  if (count > 0) {
    s->out_at = s->out_length = 0;
    for (unsigned i = 0; i < count; i++) {
      const Query *query = taken();
      unsigned short id = s->next_id++;
      unsigned char *out = s->out + s->out_length;
      memcpy(out, query->octets, query->length + 2);
      out[2] = (unsigned char)(id >> 8);
      out[3] = (unsigned char)id;
      s->out_length += query->length + 2;
      *when(s, id) = time;
    }
    s->under_way += count;
    sent += count;
  }
  return flush(s) || moved;
}

static unsigned quantile(double share) {
  unsigned long below = 0;
  for (unsigned at = 0; at < MICROSECONDS; at++)
    if ((below += latencies[at]) >= share * (double)replies) return at;
  return MICROSECONDS;
}

int main(int argc, char **argv) {
  if (argc < 7) {
    fputs("usage: load udp|tcp PORT SECONDS SOCKETS WINDOW QUERIES [COUNT]\n", stderr);
    return 2;
  }
  int is_stream = strcmp(argv[1], "tcp") == 0;
  double duration = atof(argv[3]);
  unsigned long most = argc > 7 ? strtoul(argv[7], NULL, 10) : (unsigned long)-1;
  socket_count = (unsigned)atoi(argv[4]);
  window = (unsigned)atoi(argv[5]);
  read_queries(argv[6]);
  if (socket_count == 0 || socket_count > MOST_SOCKETS || window == 0 || window > MOST_WINDOW || query_count == 0) {
    fputs("load: 1 to 64 sockets, a window of 1 to 512, and at least one query\n", stderr);
    return 2;
  }
  sockets = calloc(socket_count, sizeof *sockets);
  for (unsigned i = 0; i < socket_count; i++) open_socket(&sockets[i], is_stream ? SOCK_STREAM : SOCK_DGRAM, atoi(argv[2]));
  double start = now(), time = start;
  while (time - start < duration && replies < most) {
    int moved = 0;
    for (unsigned i = 0; i < socket_count; i++) moved |= is_stream ? stream(&sockets[i]) : datagrams(&sockets[i]);
    if (!moved) {
      struct pollfd waiting[MOST_SOCKETS];
      for (unsigned i = 0; i < socket_count; i++) waiting[i] = (struct pollfd){.fd = sockets[i].fd, .events = POLLIN};
      poll(waiting, socket_count, 1);
    }
    time = now();
  }
  double elapsed = time - start, count = replies > 0 ? (double)replies : 1;
  printf("seconds %.4f sent %lu replies %lu qps %.0f right %lu nxdomain %lu lost %lu mean_us %.0f p50_us %u p99_us %u octets %.1f\n",
         elapsed, sent, replies, (double)replies / elapsed, right, nxdomain, lost, 1e6 * latency_sum / count, quantile(0.5),
         quantile(0.99), (double)octets_received / count);
  return 0;
}
