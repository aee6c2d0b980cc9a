# Container images. Included by the Makefile.
IMAGE_BUILDER ?= $(firstword $(foreach tool,docker podman buildah,$(if $(shell command -v $(tool) 2>/dev/null),$(tool))))
IMAGE_PREFIX ?= ocr-finetune-
IMAGE_REVISION ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
# More flags of the builder, such as --network=host.
IMAGE_FLAGS ?=
IMAGE_VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Equal sources and an equal base give equal layers: every file gets the time of the commit.
IMAGE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),1767225600)
IMAGE_TIME = $(if $(findstring docker,$(IMAGE_BUILDER)),--build-arg SOURCE_DATE_EPOCH=$(IMAGE_EPOCH),--timestamp $(IMAGE_EPOCH))
IMAGE_ARGUMENTS = $(foreach name,BASE_IMAGE PIP_INDEX_URL PADDLE_GPU_INDEX,$(if $($(name)),--build-arg $(name)=$($(name)))) \
	--build-arg VERSION=$(IMAGE_VERSION) --build-arg REVISION=$(IMAGE_REVISION)

.PHONY: images
images: image-operator image-trainer ## build the operator's and the CPU trainer's image

image-%:
	@test -n "$(IMAGE_BUILDER)" || { echo "make images needs docker, podman or buildah on the PATH" >&2; exit 1; }
	$(IMAGE_BUILDER) build $(IMAGE_FLAGS) $(IMAGE_TIME) $(IMAGE_ARGUMENTS) --target $* --tag $(IMAGE_PREFIX)$*:$(IMAGE_VERSION) --file Dockerfile .
