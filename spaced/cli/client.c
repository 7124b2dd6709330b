/* HTTP over the daemon's admin socket. Errors are said here, once, in words. */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "spaced/cli/cli.h"

#define ANSWER_MAX (256U * 1024 * 1024)
#define FOLLOW_S 60 /* for the next daemon to answer */

struct answer {
	struct buf body;
	char *next; /* of a Link header: path and query */
	void (*sink)(const char *p, size_t n);
	char log[80];	   /* of an X-Log-Position header: the name before the colon */
	uint64_t position; /* of the next byte of it */
	CURL *curl;
};

static size_t on_data(char *p, size_t size, size_t n, void *ctx)
{
	struct answer *a = ctx;
	long status = 0;

	curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &status);
	if (a->sink && status < 400) {
		a->sink(p, size * n);
		a->position += size * n;
	} else if (a->body.len + size * n > ANSWER_MAX)
		return 0;
	else
		buf_add(&a->body, p, size * n);
	return size * n;
}

/* Link: <http://any/api/spaces?cursor=x>; rel="next" */
static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
	struct answer *a = ctx;
	cleanup_free char *line = xstrndup(p, size * n);
	char *from = strstr(line, "://"), *end = strchr(line, '>');

	if (!strncasecmp(line, "Link:", 5) && from && end && strstr(end, "rel=\"next\"")) {
		*end = '\0';
		from = strchr(from + 3, '/');
		free(a->next);
		a->next = from ? xstrdup(from) : NULL;
	}
	sscanf(line, "X-Log-Position: %79[a-z0-9-]:%" SCNu64, a->log, &a->position);
	return size * n;
}

static void no_daemon(struct cli *c, bool not_connected, int os, struct buf *why)
{
	if (os == EACCES || os == EPERM)
		buf_addf(why, "may not speak to the daemon in `%s`: run it as root, or as the user that spaced runs as",
			 c->state);
	else if (not_connected)
		buf_addf(why,
			 "no spaced runs in the state folder `%s` (%s/control.sock: %s); start it, or name another "
			 "folder with"
			 " --state",
			 c->state, c->state, os ? strerror(os) : "no answer");
}

static int curl_failed(struct cli *c, CURL *curl, CURLcode rc, struct buf *why)
{
	long os = 0;

	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os);
	no_daemon(c, rc == CURLE_COULDNT_CONNECT, (int)os, why);
	if (!why->len)
		buf_addf(why, "the daemon in `%s`: %s", c->state, curl_easy_strerror(rc));
	return CLI_FAILED;
}

/* sun_path has 108 bytes; a longer one goes through a descriptor of the folder. */
static char *socket_path(const char *state, int *dir)
{
	char *path = xasprintf("%s/control.sock", state);

	if (strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path))
		return path;
	free(path);
	*dir = open(state, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return xasprintf("/proc/self/fd/%d/control.sock", *dir);
}

int client_connect(struct cli *c)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	cleanup_close int dir = -1;
	cleanup_free char *path = socket_path(c->state, &dir);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cleanup_buf struct buf why = BUF_INIT;

	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return fd;
	no_daemon(c, true, errno, &why);
	complain("%s", why.data);
	if (fd >= 0)
		close(fd);
	return -1;
}

static int perform(struct cli *c, const char *method, const char *path, const char *body, struct answer *a,
		   long *status, struct buf *why)
{
	cleanup_close int dir = -1;
	cleanup_free char *sock = socket_path(c->state, &dir), *url = xasprintf("http://localhost%s", path);
	CURL *curl = curl_easy_init();
	struct curl_slist *headers = NULL;
	CURLcode rc;

	if (!curl) {
		buf_adds(why, "libcurl cannot start");
		return CLI_FAILED;
	}
	a->curl = curl;
	headers = curl_slist_append(headers, a->sink ? "Accept: text/plain" : "Accept: application/json");
	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Expect:");
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, sock);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	if (strcmp(method, "GET") != 0) {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body ? body : "");
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)strlen(body ? body : ""));
	}
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, a);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, a);
	rc = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, status);
	int result = rc == CURLE_OK ? CLI_OK : curl_failed(c, curl, rc, why);
	curl_slist_free_all(headers);
	curl_easy_cleanup(curl);
	return result;
}

/* The daemon's own words for a failure. */
static int refused(struct answer *a, long status)
{
	json_t *j = json_loadb(a->body.data ? a->body.data : "", a->body.len, 0, NULL);
	const char *text = json_string_value(json_object_get(j, "error"));
	int rc = text ? complain("%s", text) : complain("the daemon answered with status %ld", status);

	json_decref(j);
	return rc;
}

static int call(struct cli *c, const char *method, const char *path, const char *body, json_t **out, char **next)
{
	cleanup_buf struct buf why = BUF_INIT;
	struct answer a = {0};
	json_error_t bad;
	long status = 0;
	int rc = perform(c, method, path, body, &a, &status, &why);

	if (rc != CLI_OK)
		complain("%s", why.data);
	else if (status >= 400)
		rc = refused(&a, status);
	else if (out && !(*out = json_loadb(a.body.data ? a.body.data : "", a.body.len, JSON_DECODE_ANY, &bad)))
		rc = complain("the daemon's answer is no JSON: %s", bad.text);
	if (next)
		*next = steal_ptr(&a.next);
	free(a.next);
	buf_release(&a.body);
	return rc;
}

int client_call(struct cli *c, const char *method, const char *path, json_t *body, json_t **out)
{
	cleanup_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

	json_decref(body);
	return call(c, method, path, text, out, NULL);
}

int client_list(struct cli *c, const char *path, json_t **out)
{
	cleanup_free char *at = xstrdup(path);
	json_t *all = json_array();

	while (at) {
		json_t *page = NULL;
		char *next = NULL;
		int rc = call(c, "GET", at, NULL, &page, &next);
		if (rc != CLI_OK) {
			json_decref(all);
			return rc;
		}
		json_array_extend(all, page);
		json_decref(page);
		free(at);
		at = next;
	}
	*out = all;
	return CLI_OK;
}

int client_show_list(struct cli *c, const char *path, const char *const *columns, size_t n, const char *empty)
{
	json_t *j;
	int rc = client_list(c, path, &j);

	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		print_table(j, columns, n, empty);
	json_decref(j);
	return CLI_OK;
}

/* The end of a stream, in words if it was a bad one. */
static int ended(struct answer *a, int rc, long status, const char *why)
{
	if (rc != CLI_OK)
		complain("%s", why);
	else if (status >= 400)
		rc = refused(a, status);
	free(a->next);
	buf_release(&a->body);
	return rc;
}

int client_stream(struct cli *c, const char *path, void (*sink)(const char *p, size_t n))
{
	cleanup_buf struct buf why = BUF_INIT;
	struct answer a = {.sink = sink};
	long status = 0;
	int rc = perform(c, "GET", path, NULL, &a, &status, &why);

	return ended(&a, rc, status, why.data);
}

/* One who was cut off says what he has. */
int client_follow(struct cli *c, const char *path, void (*sink)(const char *p, size_t n))
{
	static const struct timespec step = {.tv_nsec = 100 * 1000 * 1000};
	struct answer a = {.sink = sink};
	time_t until = 0;
	bool begun = false;

	for (;;) {
		cleanup_free char *from = xasprintf("%s&from=%s:%" PRIu64, path, a.log, a.position);
		cleanup_buf struct buf why = BUF_INIT;
		long status = 0;
		int rc = perform(c, "GET", begun ? from : path, NULL, &a, &status, &why);
		if (rc == CLI_OK || (!begun && status == 0) || (until && time(NULL) >= until))
			return ended(&a, rc, status, why.data);
		begun = true;
		until = status == 0 && until ? until : time(NULL) + FOLLOW_S;
		nanosleep(&step, NULL);
	}
}

json_t *client_status(struct cli *c, struct buf *why)
{
	struct answer a = {0};
	json_t *j = NULL;
	long status = 0;

	if (perform(c, "GET", "/api/admin/status", NULL, &a, &status, why) == CLI_OK) {
		j = status == 200 ? json_loadb(a.body.data ? a.body.data : "", a.body.len, 0, NULL) : NULL;
		if (!j)
			buf_addf(why, "the daemon answered with status %ld", status);
	}
	free(a.next);
	buf_release(&a.body);
	return j;
}

static void encode(struct buf *out, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", s[i]))
			buf_addc(out, s[i]);
		else
			buf_addf(out, "%%%02X", (unsigned char)s[i]);
}

char *client_segment(const char *word)
{
	struct buf out = BUF_INIT;

	encode(&out, word, strlen(word));
	return buf_steal(&out, NULL);
}

char *client_space_path(const char *word, const char *rest)
{
	struct buf out = BUF_INIT;
	const char *slash = strchr(word, '/');

	if (!slash || slash == word || !slash[1] || strchr(slash + 1, '/')) {
		complain("`%s` is no Space: it must be OWNER/NAME", word);
		return NULL;
	}
	buf_adds(&out, "/api/spaces/");
	encode(&out, word, (size_t)(slash - word));
	buf_addc(&out, '/');
	encode(&out, slash + 1, strlen(slash + 1));
	buf_adds(&out, rest);
	return buf_steal(&out, NULL);
}
