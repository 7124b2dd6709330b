/* sdk: static. Plain: the tree goes to the site's folder, no process is ever started. With app_build_command: built in a
 * scratch layer over the npm layer, and the folder of app_file is what is served. */
#include "spaced/build/recipe.h"

#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"

/* The page that `/` shows lies in `dir` ("" for the root) under the name `file`. */
static char *site_json(const char *root, const char *index, const char *redirect)
{
	json_t *j = json_pack("{s:s,s:s}", "root", root, "index", index);

	if (redirect)
		json_object_set_new(j, "redirect", json_string(redirect));
	char *text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	return text ? text : xstrdup("{\"root\":\"\",\"index\":\"index.html\"}");
}

int recipe_static(struct making *m, struct err *err)
{
	const char *file = m->verdict->app_file;

	/* The whole repository stays reachable; a start page in a folder gets a redirect, so that its links work. */
	if (strchr(file, '/'))
		m->out->site_json = site_json("", "index.html", file);
	else
		m->out->site_json = site_json("", file, NULL);
	return 0;
}

int recipe_static_build(struct making *m, struct err *err)
{
	const char *file = m->verdict->app_file;
	const char *slash = strrchr(file, '/');
	cleanup_free char *dir = slash ? xstrndup(file, (size_t)(slash - file)) : xstrdup("");

	if (recipe_add_packages(m, err) < 0 || recipe_add_node(m, true, err) < 0)
		return -1;
	struct layer_plan *l = recipe_add_source(m);
	l->scratch = true;
	struct step *s = recipe_step(l, "build");
	s->argv = argv_of("sh", "-c", m->verdict->command, NULL);
	s->internet = true;
	s->show = true;
	s = recipe_step(l, "publish");
	s->output_site = true;
	cleanup_free char *from = xasprintf("/app/%s", dir);
	s->argv = argv_of("tar", "-c", "-C", from, ".", NULL);
	if (!*dir) {
		/* the whole work tree: without what only the build needed */
		argv_free(s->argv);
		s->argv = argv_of("tar", "-c", "-C", "/app", "--exclude=./node_modules", ".", NULL);
	}
	m->out->site_json = site_json("", slash ? slash + 1 : file, NULL);
	return 0;
}
