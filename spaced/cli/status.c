/* spacectl status, spacectl doctor: the verbs about the machine. */
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "spaced/cli/cli.h"
#include "spaced/cli/doctor.h"

#define UPGRADE_S 90 /* pushes that are being received go before: drain-timeout */

static const char *const status_fields[] = {"Version=version",
					    "URL=url",
					    "State=state",
					    "Started=startedAt",
					    "Spawner connected=spawner",
					    "Users=users",
					    "Spaces=spaces",
					    "Running=running",
					    "Builds running=buildsRunning",
					    "Builds queued=buildsQueued"};

static int status(struct cli *c)
{
	json_t *j;
	int rc = client_call(c, "GET", "/api/admin/status", NULL, &j);

	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		print_fields(j, status_fields, sizeof(status_fields) / sizeof(status_fields[0]));
	json_decref(j);
	return CLI_OK;
}

static const char *const level_words[] = {[DOCTOR_OK] = "ok", [DOCTOR_LACKS] = "lacks", [DOCTOR_FAILS] = "FAILS"};

/* One finding a line, and below it what mends it. */
static void print_report(json_t *rows)
{
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		const char *fix = json_string_value(json_object_get(row, "fix"));
		printf("%-6s %-22s %s\n", json_string_value(json_object_get(row, "level")),
		       json_string_value(json_object_get(row, "check")),
		       json_string_value(json_object_get(row, "found")));
		if (fix)
			printf("       %-22s -> %s\n", "", fix);
	}
}

static int doctor(struct cli *c)
{
	cleanup_buf struct buf why = BUF_INIT;
	json_t *rows = json_array();
	json_t *daemon = client_status(c, &why);
	size_t n;
	const struct finding *f = doctor_examine(c->state, &n);
	int rc = CLI_OK;

	for (size_t i = 0; i < n; i++) {
		json_t *row = json_pack("{s:s, s:s, s:s, s:s?}", "check", f[i].check, "level", level_words[f[i].level],
					"found", f[i].found, "fix", *f[i].fix ? f[i].fix : NULL);
		json_array_append_new(rows, row);
		if (f[i].level == DOCTOR_FAILS)
			rc = CLI_FAILED;
	}
	if (c->json) {
		json_t *all = json_pack("{s:o, s:o, s:b}", "checks", rows, "daemon", daemon ? daemon : json_null(),
					"ok", rc == CLI_OK);
		print_json(all);
		json_decref(all);
		return rc;
	}
	print_report(rows);
	if (daemon)
		printf("%-6s %-22s version %s, %s\n", "ok", "daemon",
		       json_string_value(json_object_get(daemon, "version")),
		       json_string_value(json_object_get(daemon, "url")));
	else
		printf("%-6s %-22s %s\n", "-", "daemon", why.data);
	json_decref(rows);
	json_decref(daemon);
	return rc;
}

static int reload(struct cli *c)
{
	json_t *j;
	int rc = client_call(c, "POST", "/api/admin/reload", NULL, &j);

	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s\n", json_string_value(json_object_get(j, "message")));
	json_decref(j);
	return CLI_OK;
}

/* The status of a daemon that was started at another time than that one; NULL: none came. */
static json_t *next_daemon(struct cli *c, const char *started)
{
	static const struct timespec step = {.tv_nsec = 100 * 1000 * 1000};
	time_t until = time(NULL) + UPGRADE_S;

	while (time(NULL) < until) {
		cleanup_buf struct buf why = BUF_INIT;
		json_t *now = client_status(c, &why);
		const char *at = json_string_value(json_object_get(now, "startedAt"));
		if (at && strcmp(at, started) != 0)
			return now;
		json_decref(now);
		nanosleep(&step, NULL);
	}
	return NULL;
}

static int upgrade(struct cli *c)
{
	json_t *before, *accepted;
	int rc = client_call(c, "GET", "/api/admin/status", NULL, &before);

	if (rc != CLI_OK)
		return rc;
	rc = client_call(c, "POST", "/api/admin/upgrade", NULL, &accepted);
	if (rc != CLI_OK) {
		json_decref(before);
		return rc;
	}
	json_decref(accepted);
	json_t *now = next_daemon(c, json_string_value(json_object_get(before, "startedAt")));
	if (!now)
		rc = complain("the new program does not answer yet; its log says why");
	else if (c->json)
		print_json(now);
	else
		printf("version %s runs (before: %s)\n", json_string_value(json_object_get(now, "version")),
		       json_string_value(json_object_get(before, "version")));
	json_decref(now);
	json_decref(before);
	return rc;
}

const struct verb host_verbs[] = {
    {"status", NULL, "", 0, 0, NULL, "what the daemon does", status},
    {"reload", NULL, "", 0, 0, NULL,
     "the daemon reads its configuration again\n\n"
     "What may change while it runs does, and it says what needs an upgrade or a new start. With a mistake in the "
     "file\n"
     "nothing changes, and the exit status is 1.",
     reload},
    {"upgrade", NULL, "", 0, 0, NULL,
     "puts the `spaced` that is installed now in the place of the one that runs\n\n"
     "No connection is dropped, and apps run on. If the new program or its configuration cannot start, nothing "
     "changes,\n"
     "and the exit status is 1.",
     upgrade},
    {"doctor", NULL, "", 0, 0, NULL,
     "what this machine gives and what it lacks; works without a daemon\n\n"
     "`lacks`: something is weaker or not possible; `FAILS`: Spaced cannot work (then the exit status is 1).",
     doctor},
    {0},
};
