/* The daemon's main: without --role it is the parent; with it, one of the roles (started by the parent or by control,
 * never by hand). */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "spaced/git/git.h"
#include "spaced/role/role.h"
#include "spaced/static/static.h"

/* Roles of the parent: configured by the file at ROLE_FD_CONFIG. */
static const struct {
	const char *name;
	int (*main)(struct config *config);
} roles[] = {
    {"spawner", role_spawner},
    {"control", role_control},
    {"proxy", role_proxy},
    {"static", role_static},
};

/* Roles of control: short-lived, with everything they need on their command line. */
static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
} helpers[] = {
    {"unpack", git_unpack_main}, {"archive", git_archive_main},	 {"upload-pack", git_upload_pack_main},
    {"repack", git_repack_main}, {"extract", site_extract_main},
};

static enum log_level level_of(const char *name)
{
	return strcmp(name, "debug") == 0   ? LOG_LEVEL_DEBUG
	       : strcmp(name, "warn") == 0  ? LOG_LEVEL_WARN
	       : strcmp(name, "error") == 0 ? LOG_LEVEL_ERROR
					    : LOG_LEVEL_INFO;
}

static int be_role(const char *name, int argc, char **argv)
{
	char *from_parent[] = {"spaced", "--config", "/proc/self/fd/4", NULL};
	struct config config;
	struct err err = ERR_INIT;

	for (size_t i = 0; i < sizeof helpers / sizeof *helpers; i++)
		if (strcmp(name, helpers[i].name) == 0) {
			int status = helpers[i].main(argc - 2, argv + 2);
			fflush(NULL);
			_exit(status); /* lives for one job: the end gives back all it has */
		}
	for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
		if (strcmp(name, roles[i].name) != 0)
			continue;
		log_init(roles[i].name, LOG_LEVEL_INFO);
		if (config_load(&config, 3, from_parent, &err) < 0) {
			log_error("configuration from the parent: %s", err.msg);
			return 1;
		}
		log_init(roles[i].name, level_of(config.log_level));
		int status = roles[i].main(&config);
		config_release(&config);
		return status;
	}
	fprintf(stderr, "spaced: no role `%s`; --role is for the daemon itself\n", name);
	return 2;
}

int main(int argc, char **argv)
{
	struct config config;
	struct err err = ERR_INIT;

	io_keep_stdio();
	if (argc >= 3 && strcmp(argv[1], "--role") == 0)
		return be_role(argv[2], argc, argv);
	if (config_load(&config, argc, argv, &err) < 0) {
		fprintf(stderr, "spaced: %s\n", err.msg);
		config_release(&config);
		return 2;
	}
	log_init("parent", level_of(config.log_level));
	int status = config.check ? role_check(&config) : role_parent(&config, argc, argv);
	config_release(&config);
	return status;
}
