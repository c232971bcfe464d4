// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"

	"portcullis/internal/strictjson"
)

// ErrImagePolicy says that an image policy, or the cdh.toml that it is to stand in, will not do.
var ErrImagePolicy = errors.New("the image policy cannot be written into cdh.toml")

// imagePolicyKey is the confidential data hub's: it judges by its value the images that the guest pulls (containers-policy.json).
const imagePolicyKey = "image_security_policy"

// CompactImagePolicy is a policy of images in the form of containers-policy.json, on one line. Without a default it is none.
func CompactImagePolicy(text []byte) (string, error) {
	var policy struct {
		Default []any `json:"default"`
	}
	var out bytes.Buffer
	if err := strictjson.Unmarshal(text, &policy); err != nil {
		return "", fmt.Errorf("%w: %w", ErrImagePolicy, err)
	}
	if len(policy.Default) == 0 {
		return "", fmt.Errorf("%w: it has no default", ErrImagePolicy)
	}
	if err := json.Compact(&out, text); err != nil {
		return "", fmt.Errorf("%w: %w", ErrImagePolicy, err)
	}
	return out.String(), nil
}

var imageTable = regexp.MustCompile(`(?m)^\[image\][ \t]*\n`)

// withImagePolicy puts an image policy into the text of a cdh.toml, all else of which stays as it is.
func withImagePolicy(cdh, policy string) (string, error) {
	image, err := imageSettings(cdh)
	if err != nil {
		return "", err
	}
	switch before := image[imagePolicyKey]; {
	case before == policy:
		return cdh, nil
	case before != nil || image[imagePolicyKey+"_uri"] != nil:
		return "", fmt.Errorf("%w: it has another already; give --initdata-path with a cdh.toml that has none", ErrImagePolicy)
	}
	var line bytes.Buffer
	if err := toml.NewEncoder(&line).Encode(map[string]string{imagePolicyKey: policy}); err != nil {
		return "", fmt.Errorf("%w: %w", ErrImagePolicy, err)
	}
	next := strings.TrimRight(cdh, "\n") + "\n\n[image]\n" + line.String()
	if at := imageTable.FindStringIndex(cdh); at != nil {
		next = cdh[:at[1]] + line.String() + cdh[at[1]:]
	}
	if image, err = imageSettings(next); err != nil || image[imagePolicyKey] != policy {
		return "", fmt.Errorf("%w: its table image is not one that begins with a line [image]", ErrImagePolicy)
	}
	return next, nil
}

// imageSettings are the settings of the table image.
func imageSettings(cdh string) (map[string]any, error) {
	var config map[string]any
	if err := toml.Unmarshal([]byte(cdh), &config); err != nil {
		return nil, fmt.Errorf("%w: %.200q", ErrImagePolicy, err.Error())
	}
	image, _ := config["image"].(map[string]any)
	return image, nil
}
