"""Node specs of ComfyUI 0.33: datasets, sound, video, 3D and paid services."""

from typing import Any

from standin.catalogue.listings import input_documents, input_folders, input_models_3d, input_sounds, input_videos
from standin.specs import DYNAMIC_COMBO, Input, NodeSpec, choice, typed


def _dynamic(*options: dict[str, Any], **more: Any) -> list[Any]:
    return [DYNAMIC_COMBO, {**more, "options": list(options)}]


def _option(key: str, required: dict[str, Any] | None = None, optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"key": key, "inputs": {"required": required or {}} | ({"optional": optional} if optional else {})}


def _codec(key: str, crf: float, highest_crf: float) -> dict[str, Any]:
    spaces = {"display_name": "color space", "default": "auto", "multiselect": False}
    quality = {
        "crf": ["FLOAT", {"default": crf, "min": 0.0, "max": highest_crf, "step": 1.0}],
        "color_space": ["COMBO", spaces | {"options": ["auto", "sRGB", "HDR", "HDR PQ"]}],
    }
    encoding = _dynamic(_option("auto"), _option("re-encode", quality), display_name="encoding mode")
    return _option(key, optional={"encoding": encoding})


H264, AV1 = _codec("h264", 23.0, 51.0), _codec("av1", 30.0, 63.0)
SAVE_FORMAT = typed(
    DYNAMIC_COMBO,
    options=[
        *(_option(key, {"codec": _dynamic(_option("auto"), H264, AV1)}) for key in ("auto", "mp4", "mkv")),
        _option("webm", {"codec": _dynamic(_option("auto"), AV1)}),
    ],
)

MEDIA_NODES = (
    NodeSpec(
        name="SlowProgress",
        title="Slow Progress (test)",
        category="testing",
        module="custom_nodes.slow_node",
        required={"image": typed("IMAGE")},
        optional={
            "seconds": typed("FLOAT", default=1.0, min=0.0, max=3600.0, step=0.1),
            "steps": typed("INT", default=4, min=1, max=10000),
        },
        outputs=("IMAGE",),
    ),
    NodeSpec(
        name="SaveImageWebsocket",
        title="Save Image (Websocket)",
        category="image",
        module="custom_nodes.websocket_image_save",
        required={"images": typed("IMAGE")},
        is_output=True,
    ),
    NodeSpec(
        name="GetImageSize",
        title="Get Image Size",
        category="image",
        module="comfy_extras.nodes_images",
        is_new_style=True,
        required={"image": typed("IMAGE")},
        hidden=("unique_id",),
        outputs=("INT", "INT", "INT"),
        output_names=("width", "height", "batch_size"),
    ),
    NodeSpec(
        name="ImageCrop",
        title="Crop Image (DEPRECATED)",
        category="image/transform",
        module="comfy_extras.nodes_images",
        is_new_style=True,
        required={
            "image": typed("IMAGE"),
            "width": typed("INT", default=512, min=1, max=16384, step=1),
            "height": typed("INT", default=512, min=1, max=16384, step=1),
            "x": typed("INT", default=0, min=0, max=16384, step=1),
            "y": typed("INT", default=0, min=0, max=16384, step=1),
        },
        outputs=("IMAGE",),
        is_deprecated=True,
        essentials="Image Tools",
    ),
    NodeSpec(
        name="ImageBlend",
        title="Blend Images",
        category="image/filters",
        module="comfy_extras.nodes_post_processing",
        is_new_style=True,
        required={
            "image1": typed("IMAGE"),
            "image2": typed("IMAGE"),
            "blend_factor": typed("FLOAT", default=0.5, min=0.0, max=1.0, step=0.01),
            "blend_mode": choice(["normal", "multiply", "screen", "overlay", "soft_light", "difference"]),
        },
        outputs=("IMAGE",),
        essentials="Image Tools",
    ),
    NodeSpec(
        name="LoadImageDataSetFromFolder",
        title="Load Image (from Folder)",
        category="image",
        module="comfy_extras.nodes_dataset",
        is_new_style=True,
        required={"folder": choice(input_folders)},
        outputs=("IMAGE",),
        output_names=("images",),
        output_is_list=(True,),
        is_experimental=True,
    ),
    NodeSpec(
        name="SaveImageDataSetToFolder",
        title="Save Image (to Folder) (DEPRECATED)",
        category="image",
        module="comfy_extras.nodes_dataset",
        is_new_style=True,
        required={
            "images": typed("IMAGE"),
            "folder_name": typed("STRING", default="dataset", multiline=False),
            "filename_prefix": typed("STRING", advanced=True, default="image", multiline=False),
            "mode": choice(["overwrite", "increment"], default="overwrite"),
        },
        hidden=("prompt", "extra_pnginfo"),
        is_output=True,
        takes_lists=True,
        is_deprecated=True,
        is_experimental=True,
    ),
    NodeSpec(
        name="SaveImageTextDataSetToFolder",
        title="Save Image-Text (to Folder)",
        category="image",
        module="comfy_extras.nodes_dataset",
        is_new_style=True,
        required={
            "images": typed("IMAGE"),
            "folder_name": typed("STRING", default="dataset", multiline=False),
            "filename_prefix": typed("STRING", advanced=True, default="image", multiline=False),
            "mode": choice(["overwrite", "increment"], default="overwrite"),
        },
        optional={"texts": typed("STRING", forceInput=True, multiline=False)},
        hidden=("prompt", "extra_pnginfo"),
        is_output=True,
        takes_lists=True,
        is_experimental=True,
    ),
    NodeSpec(
        name="LoadVideo",
        title="Load Video",
        category="video",
        module="comfy_extras.nodes_video",
        is_new_style=True,
        required={"file": choice(input_videos, video_upload=True)},
        outputs=("VIDEO",),
        essentials="Basics",
    ),
    NodeSpec(
        name="SaveVideo",
        title="Save Video",
        category="video",
        module="comfy_extras.nodes_video",
        is_new_style=True,
        required={
            "video": typed("VIDEO"),
            "filename_prefix": typed("STRING", default="video/ComfyUI", multiline=False),
            "format": SAVE_FORMAT,
        },
        optional={"codec": typed(DYNAMIC_COMBO, hidden=True, options=[_option("auto"), H264, AV1])},
        hidden=("prompt", "extra_pnginfo"),
        outputs=("VIDEO",),
        output_names=("video",),
        is_output=True,
        essentials="Basics",
    ),
    NodeSpec(
        name="LoadAudio",
        title="Load Audio",
        category="audio",
        module="comfy_extras.nodes_audio",
        is_new_style=True,
        required={"audio": choice(input_sounds, audio_upload=True)},
        outputs=("AUDIO",),
        essentials="Audio",
    ),
    NodeSpec(
        name="SaveAudio",
        title="Save Audio (FLAC) (DEPRECATED)",
        category="audio",
        module="comfy_extras.nodes_audio",
        is_new_style=True,
        required={
            "audio": typed("AUDIO"),
            "filename_prefix": typed("STRING", default="audio/ComfyUI", multiline=False),
        },
        hidden=("prompt", "extra_pnginfo"),
        outputs=("AUDIO",),
        output_names=("audio",),
        is_output=True,
        is_deprecated=True,
        essentials="Audio",
    ),
    NodeSpec(
        name="Painter",
        title="Painter",
        category="image",
        module="comfy_extras.nodes_painter",
        is_new_style=True,
        required={
            "mask": typed(
                "STRING", widgetType="PAINTER", image_upload=True, default="", socketless=True, multiline=False
            ),
            "width": typed("INT", hidden=True, default=512, socketless=True, min=64, max=4096, step=64),
            "height": typed("INT", hidden=True, default=512, socketless=True, min=64, max=4096, step=64),
            "bg_color": typed("COLOR", default="#000000", socketless=True),
        },
        optional={"image": typed("IMAGE")},
        outputs=("IMAGE", "MASK"),
        has_intermediate_output=True,
    ),
    NodeSpec(
        name="Load3D",
        title="Load 3D & Animation",
        category="3d",
        module="comfy_extras.nodes_load_3d",
        is_new_style=True,
        required={
            "model_file": choice(input_models_3d, file_upload=True),
            "image": typed("LOAD_3D"),
            "width": typed("INT", default=1024, min=1, max=4096, step=1),
            "height": typed("INT", default=1024, min=1, max=4096, step=1),
        },
        outputs=("IMAGE", "MASK", "STRING", "IMAGE", "LOAD3D_CAMERA", "VIDEO", "FILE_3D", "LOAD3D_MODEL_INFO"),
        output_names=(
            "image",
            "mask",
            "mesh_path",
            "normal",
            "camera_info",
            "recording_video",
            "model_3d",
            "model_3d_info",
        ),
        is_experimental=True,
        essentials="Basics",
    ),
    NodeSpec(
        name="WebcamCapture",
        title="Webcam Capture",
        category="image",
        module="comfy_extras.nodes_webcam",
        required={
            "image": Input("WEBCAM", {}),
            "width": typed("INT", default=0, min=0, max=16384, step=1),
            "height": typed("INT", default=0, min=0, max=16384, step=1),
            "capture_on_queue": typed("BOOLEAN", default=True),
        },
        outputs=("IMAGE",),
        essentials="Basics",
    ),
    NodeSpec(
        name="GLSLShader",
        title="GLSL Shader",
        category="image/shader",
        module="comfy_extras.nodes_glsl",
        is_new_style=True,
        required={
            "fragment_shader": typed("STRING", default="#version 300 es\nvoid main() {}\n", multiline=True),
            "size_mode": typed(
                "COMFY_DYNAMICCOMBO_V3",
                options=[
                    {"key": "from_input", "inputs": {"required": {}}},
                    {
                        "key": "custom",
                        "inputs": {
                            "required": {
                                "width": ["INT", {"default": 512, "min": 1, "max": 16384}],
                                "height": ["INT", {"default": 512, "min": 1, "max": 16384}],
                            }
                        },
                    },
                ],
            ),
            "images": typed(
                "COMFY_AUTOGROW_V3",
                template={"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 5},
            ),
            "floats": typed(
                "COMFY_AUTOGROW_V3",
                template={
                    "input": {"required": {"float": ["FLOAT", {"default": 0.0, "forceInput": True}]}},
                    "prefix": "u_float",
                    "min": 0,
                    "max": 20,
                },
            ),
            "ints": typed(
                "COMFY_AUTOGROW_V3",
                template={
                    "input": {"required": {"int": ["INT", {"default": 0, "forceInput": True}]}},
                    "prefix": "u_int",
                    "min": 0,
                    "max": 20,
                },
            ),
            "bools": typed(
                "COMFY_AUTOGROW_V3",
                template={
                    "input": {"required": {"bool": ["BOOLEAN", {"default": False, "forceInput": True}]}},
                    "prefix": "u_bool",
                    "min": 0,
                    "max": 10,
                },
            ),
            "curves": typed(
                "COMFY_AUTOGROW_V3",
                template={
                    "input": {
                        "required": {
                            "curve": [
                                "CURVE",
                                {
                                    "default": {"points": [[0.0, 0.0], [1.0, 1.0]], "interpolation": "monotone_cubic"},
                                    "socketless": True,
                                    "forceInput": True,
                                },
                            ]
                        }
                    },
                    "prefix": "u_curve",
                    "min": 0,
                    "max": 4,
                },
            ),
        },
        outputs=("IMAGE", "IMAGE", "IMAGE", "IMAGE"),
        output_names=("IMAGE0", "IMAGE1", "IMAGE2", "IMAGE3"),
        is_experimental=True,
        has_intermediate_output=True,
    ),
    NodeSpec(
        name="OpenAIDalle3",
        title="OpenAI DALL·E 3",
        category="partner/image/OpenAI",
        module="comfy_api_nodes.nodes_openai",
        is_new_style=True,
        required={"prompt": typed("STRING", default="", multiline=True)},
        optional={
            "seed": typed(
                "INT", default=0, min=0, max=2147483647, step=1, control_after_generate=True, display="number"
            ),
            "quality": choice(["standard", "hd"], default="standard"),
            "style": choice(["natural", "vivid"], default="natural"),
            "size": choice(["1024x1024", "1024x1792", "1792x1024"], default="1024x1024"),
        },
        hidden=("auth_token_comfy_org", "api_key_comfy_org", "unique_id", "comfy_usage_source"),
        outputs=("IMAGE",),
        is_api=True,
    ),
    NodeSpec(
        name="GeminiInputFiles",
        title="Gemini Input Files",
        category="partner/text/Gemini",
        module="comfy_api_nodes.nodes_gemini",
        is_new_style=True,
        required={"file": choice(input_documents)},
        optional={"GEMINI_INPUT_FILES": typed("GEMINI_INPUT_FILES")},
        outputs=("GEMINI_INPUT_FILES",),
    ),
)
