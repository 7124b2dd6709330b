/* Group F: network. */
#include "probe.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>

/* `argument`: "address:port" of the host, several with commas. */
static void f1(void)
{
	char *list = strdup(argument), *save = NULL;

	for (char *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		char *colon = strrchr(one, ':');
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
		struct timeval limit = {.tv_sec = 3};
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		*colon = '\0';
		inet_pton(AF_INET, one, &a.sin_addr);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
		say(connect(fd, (struct sockaddr *)&a, sizeof a) == 0, one);
		close(fd);
	}
	free(list);
}

const struct probe_case net_cases[] = {
    {"F1", f1},
    {NULL, NULL},
};
