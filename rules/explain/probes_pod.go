package explain

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// probeIdentity tells what the request says of the pod that the policy does not.
func probeIdentity(o *ours) []Finding {
	var out []Finding
	pattern := func(key, pattern string) {
		value := o.annotation("io.kubernetes.cri.sandbox-" + key)
		if ok, err := regexp.MatchString(pattern, value); err != nil || !ok {
			out = append(out, Finding{Path: annotationPath("io.kubernetes.cri.sandbox-" + key), Wanted: pattern, Got: value})
		}
	}
	pattern("name", o.policy.Sandbox.Name)
	if namespace := o.policy.Sandbox.Namespace; namespace != "" {
		out = append(out, o.annotated("io.kubernetes.cri.sandbox-namespace", namespace)...)
	} else {
		pattern("namespace", `^[a-z0-9][a-z0-9-]*$`)
	}
	pattern("id", `^[a-z0-9]{64}$`)
	pattern("uid", `^[0-9a-f-]*$`)
	out = append(out, o.annotated("io.katacontainers.pkg.oci.bundle_path", strings.ReplaceAll(o.policy.Common.BundlePath, "$(container-id)", o.rootID()))...)
	name := o.annotation("io.kubernetes.cri.sandbox-name")
	hostname := o.fill(o.policy.Sandbox.Hostname)
	if got := text(at(o.input, "OCI", "Hostname")); got != "" && hostname != "" && got != hostname {
		out = append(out, Finding{Path: "OCI.Hostname", Wanted: hostname, Got: got})
	}
	if dir := o.annotation("io.kubernetes.cri.sandbox-log-directory"); dir != "" {
		wanted := fmt.Sprintf("/var/log/pods/%s_%s_%s", o.annotation("io.kubernetes.cri.sandbox-namespace"), name, o.annotation("io.kubernetes.cri.sandbox-uid"))
		if dir != wanted {
			out = append(out, Finding{Path: annotationPath("io.kubernetes.cri.sandbox-log-directory"), Wanted: wanted, Got: dir})
		}
	}
	return out
}

// probePod tells what of the pod is not as the first container said.
func probePod(o *ours) []Finding {
	pod := object(at(o.pstate, "pod"))
	var out []Finding
	for _, key := range slices.Sorted(maps.Keys(pod)) {
		if key == "network" {
			continue
		}
		out = append(out, o.annotated("io.kubernetes.cri.sandbox-"+key, text(pod[key]))...)
	}
	for _, n := range list(at(o.input, "OCI", "Linux", "Namespaces")) {
		if text(at(n, "Type")) == "network" && text(at(n, "Path")) != text(pod["network"]) {
			out = append(out, Finding{Path: "OCI.Linux.Namespaces[network].Path", Wanted: pod["network"], Got: at(n, "Path")})
		}
	}
	return out
}

// probeInstance tells whether it is the id or the container that exists already.
func probeInstance(o *ours) []Finding {
	id := text(at(o.input, "container_id"))
	if other := text(at(o.pstate, "container:"+id)); other != "" {
		return []Finding{{Path: "container_id", Wanted: Phrase("an id that is free"), Got: Phrase("the id of container " + other + ", which exists")}}
	}
	return []Finding{{Path: annotationPath(nameKey), Wanted: Phrase("a container that does not exist yet"),
		Got: Phrase(o.name + ", which exists with the id " + text(at(o.pstate, "running:"+o.name)))}}
}

// probeOrder names the containers that have to come before.
func probeOrder(o *ours) []Finding {
	var out []Finding
	for _, after := range o.container.After {
		if at(o.pstate, string(after.State)+":"+after.Container) != true {
			out = append(out, Finding{Path: annotationPath(nameKey), Got: Phrase(o.name + " before that"),
				Wanted: Phrase(fmt.Sprintf("%s only after %s has %s", o.name, after.Container, after.State))})
		}
	}
	return out
}

// probeAnnotations words what the rules found about annotations: which are there
// or not is more than a value.
func probeAnnotations(o *ours) []Finding {
	given := object(at(o.input, "OCI", "Annotations"))
	var out []Finding
	for _, f := range o.given["annotations"] {
		if _, has := given[insideBrackets(f.Path)]; !has {
			f.Got = missing
		}
		if f.Wanted == nil {
			f.Wanted = Phrase("no such annotation")
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return strings.Compare(a.Path, b.Path) })
	return out
}
