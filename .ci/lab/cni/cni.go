// SPDX-License-Identifier: Apache-2.0

// Package cni is the lab's network plugin: it makes no network and gives each pod an address that follows from its name.
package cni

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// Address is a pod's address in every run.
func Address(namespace, pod string) string {
	d := sha256.Sum256([]byte(namespace + "/" + pod))
	return fmt.Sprintf("10.244.%d.%d", d[0], 1+d[1]%254)
}

// Main answers one call of the container runtime, as the specification of CNI has it.
func Main() error {
	config, err := io.ReadAll(os.Stdin)
	if err != nil {
		return fmt.Errorf("CNI: read the configuration: %w", err)
	}
	var asked struct{ CNIVersion string }
	if err := json.Unmarshal(config, &asked); err != nil && os.Getenv("CNI_COMMAND") != "VERSION" {
		return fmt.Errorf("CNI: read the configuration: %w", err)
	}
	var reply any
	switch os.Getenv("CNI_COMMAND") {
	case "VERSION":
		reply = map[string]any{"cniVersion": "1.0.0", "supportedVersions": []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0"}}
	case "ADD":
		reply = result(asked.CNIVersion)
	default:
		return nil
	}
	return json.NewEncoder(os.Stdout).Encode(reply)
}

func result(version string) any {
	args := map[string]string{}
	for _, pair := range strings.Split(os.Getenv("CNI_ARGS"), ";") {
		k, v, _ := strings.Cut(pair, "=")
		args[k] = v
	}
	name, address := os.Getenv("CNI_IFNAME"), Address(args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"])+"/16"
	if name == "lo" {
		address = "127.0.0.1/8"
	}
	ip := map[string]any{"address": address, "interface": 0}
	if strings.HasPrefix(version, "0.") {
		ip["version"] = "4"
	}
	return map[string]any{"cniVersion": version, "ips": []any{ip},
		"interfaces": []any{map[string]any{"name": name, "mac": "02:00:00:00:00:01", "sandbox": os.Getenv("CNI_NETNS")}}}
}
