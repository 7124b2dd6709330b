/* Group F: network. */
#include "probe.h"

#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static struct sockaddr_in address_of(const char *ip, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	inet_pton(AF_INET, ip, &a.sin_addr);
	return a;
}

/* `argument`: "address:port" of the host, several with commas. */
static void f1(void)
{
	char *list = strdup(argument), *save = NULL;

	for (char *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		char *name = strdup(one);
		char *colon = strrchr(one, ':');
		struct timeval limit = {.tv_sec = 3};
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		*colon = '\0';
		struct sockaddr_in a = address_of(one, atoi(colon + 1));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
		say(connect(fd, (struct sockaddr *)&a, sizeof a) == 0, name);
		close(fd);
		free(name);
	}
	free(list);
}

/* `argument`: unix sockets of the host, several with commas; an abstract one begins with @. */
static void f3(void)
{
	char *list = strdup(argument), *save = NULL, line[512];
	bool listed = false;
	FILE *f = fopen("/proc/net/unix", "r");

	while (f && fgets(line, sizeof line, f))
		listed |= strstr(line, "spaced") != NULL;
	errno = ENOENT;
	say(listed, "a socket of the host in /proc/net/unix");
	for (char *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		struct sockaddr_un a = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		size_t n = strlen(one);

		memcpy(a.sun_path, one, n < sizeof a.sun_path ? n : sizeof a.sun_path);
		if (*one == '@')
			a.sun_path[0] = '\0';
		say(connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) == 0,
		    one);
		close(fd);
	}
	free(list);
}

/* -- F4 ------------------------------------------------------------------------------------------------------------- */

static char neighbour[64], interface[IFNAMSIZ];

static long packet_socket(long type)
{
	return socket(AF_PACKET, (int)type, htons(0x0806)); /* ARP */
}

static long raw_socket(long family)
{
	return socket((int)family, SOCK_RAW, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static long bind_to_neighbour(long unused)
{
	struct sockaddr_in a = address_of(neighbour, 0);

	return bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof a);
}

static long transparent(long unused)
{
	int one = 1;

	return setsockopt(socket(AF_INET, SOCK_STREAM, 0), SOL_IP, IP_TRANSPARENT, &one, sizeof one);
}

static long bind_to_interface(long unused)
{
	return setsockopt(socket(AF_INET, SOCK_DGRAM, 0), SOL_SOCKET, SO_BINDTODEVICE, interface,
			  (socklen_t)strlen(interface));
}

/* Is there a link-local address on anything but loopback, by which to see IPv6 neighbours? */
static long ipv6_link(long unused)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	inet_pton(AF_INET6, "ff02::1", &a.sin6_addr);
	for (uint32_t i = 2; fd >= 0 && i < 200; i++) {
		a.sin6_scope_id = i;
		if (sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a) == 1)
			return 0;
	}
	return -1;
}

/* A request to rtnetlink about interface 1, acknowledged. */
static long route_request(long type)
{
	struct {
		struct nlmsghdr h;
		union {
			struct ndmsg neighbour;
			struct ifaddrmsg address;
		} u;
		struct rtattr attr;
		struct in_addr ip;
		struct rtattr local;
		struct in_addr ip2;
	} q = {.h = {.nlmsg_type = (unsigned short)type,
		     .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE}};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
	} answer = {.e = {.error = -EIO}};
	size_t body = type == RTM_NEWNEIGH ? sizeof q.u.neighbour : sizeof q.u.address;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	char *at = (char *)&q.u + NLMSG_ALIGN(body);
	struct rtattr attr = {.rta_len = RTA_LENGTH(4), .rta_type = 1};
	struct in_addr ip = {htonl(0x7f000309)};

	if (type == RTM_NEWNEIGH)
		q.u.neighbour = (struct ndmsg){.ndm_family = AF_INET, .ndm_ifindex = 1, .ndm_state = NUD_PERMANENT};
	else
		q.u.address = (struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = 1};
	for (int i = 0; i < (type == RTM_NEWNEIGH ? 1 : 2); i++) {
		attr.rta_type = (unsigned short)(i + 1);
		memcpy(at, &attr, sizeof attr);
		memcpy(at + sizeof attr, &ip, sizeof ip);
		at += RTA_ALIGN(RTA_LENGTH(4));
	}
	q.h.nlmsg_len = (uint32_t)(at - (char *)&q);
	if (fd < 0 || sendto(fd, &q, q.h.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0 ||
	    recv(fd, &answer, sizeof answer, 0) < (ssize_t)sizeof answer.h)
		return -1;
	errno = -answer.e.error;
	return answer.e.error ? -1 : 0;
}

/* `argument`: "NEIGHBOUR INTERFACE": an address and an interface that are the host's. The control is a network namespace
 * of its own, with the address on that interface. */
static void f4(void)
{
	if (sscanf(argument, "%63s %15s", neighbour, interface) != 2)
		exit(99);
	in_child("ARP by a packet socket", packet_socket, SOCK_RAW);
	in_child("ARP by a cooked packet socket", packet_socket, SOCK_DGRAM);
	in_child("raw IPv4", raw_socket, AF_INET);
	in_child("raw IPv6", raw_socket, AF_INET6);
	in_child("bind to a neighbour's address", bind_to_neighbour, 0);
	in_child("IP_TRANSPARENT", transparent, 0);
	in_child("SO_BINDTODEVICE of the host's interface", bind_to_interface, 0);
	in_child("IPv6 neighbours", ipv6_link, 0);
	in_child("neighbour entry", route_request, RTM_NEWNEIGH);
	in_child("another address", route_request, RTM_NEWADDR);
}

/* `argument`: "ADDRESS COUNT": datagrams to that many ports, each a connection of its own to who counts them. */
static void f6(void)
{
	char ip[64];
	int count, sent = 0;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (sscanf(argument, "%63s %d", ip, &count) != 2)
		exit(99);
	for (int i = 0; i < count; i++) {
		struct sockaddr_in a = address_of(ip, 1024 + i);
		sent += sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a) == 1;
	}
	fact("sent", "%d", sent);
}

const struct probe_case net_cases[] = {
    {"F1", f1}, {"F3", f3}, {"F4", f4}, {"F6", f6}, {NULL, NULL},
};
