// Adds a menu of the published versions to the bar of a page. .ci/site-index writes the list beside the versions.
"use strict";

(async () => {
    const site = new URL(`${path_to_root || "./"}../`, location.href);
    const bar = document.querySelector("#mdbook-menu-bar .right-buttons, #menu-bar .right-buttons");
    const response = await fetch(new URL("versions.json", site));
    if (!bar || !response.ok) return;
    const here = location.pathname.slice(new URL(site).pathname.length).split("/")[0];
    const menu = document.createElement("select");
    menu.id = "versions";
    menu.setAttribute("aria-label", "Version of this documentation");
    for (const { version, label } of await response.json()) {
        menu.add(new Option(label, version, version === here, version === here));
    }
    menu.addEventListener("change", async () => {
        // The same page of the other version, or its front page.
        const page = location.pathname.slice(new URL(site).pathname.length + here.length + 1);
        const same = new URL(`${menu.value}/${page}`, site);
        const exists = (await fetch(same, { method: "HEAD" })).ok;
        location.assign(exists ? same : new URL(`${menu.value}/`, site));
    });
    bar.prepend(menu);
})();
